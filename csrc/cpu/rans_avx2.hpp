// What the kernels for AVX-512 take from those for AVX2: 8 lanes are one register of 256 bits.
#pragma once

#include "common/rans_kernels.hpp"

namespace aicr {

bool decode_narrow_avx2(const TableSet& tables, const uint8_t* index, size_t groups, DecodeLanes& lanes,
                        uint8_t* entry);
void encode_narrow_avx2(const TableSet& tables, const uint8_t* index, const uint8_t* entry, size_t groups,
                        EncodeLanes& lanes);

}  // namespace aicr
