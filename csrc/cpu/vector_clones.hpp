// One function compiled for several instruction sets; the dynamic loader picks the best one once, at load
// time.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
// x86-64-v3 rather than "avx2": the latter has no FMA.
#define AICR_VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define AICR_VECTOR_CLONES
#endif

#if defined(__GNUC__) && !defined(__clang__)
// About vectors as arguments and results of functions that are inlined everywhere.
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

// For the templates such a function is made of: only code inlined into a clone is compiled for its
// instruction set.
#define AICR_INLINE inline __attribute__((always_inline))
#define AICR_INLINE_LAMBDA __attribute__((always_inline))
