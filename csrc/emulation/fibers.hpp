// Up to 1024 stacks on one thread of the operating system, and the switch between them.
#pragma once

namespace aicr::emulation {

// Runs `body` with the number of the fiber, from its beginning on or from where it paused. True once it has
// ended. `body` must not let an exception out.
bool resume_fiber(int fiber, void (*body)(int));

// Back to who resumed the fiber that is running.
void pause_fiber();

// Forgets the fibers that have not ended: the next resume begins anew.
void drop_fibers();

}  // namespace aicr::emulation
