// Table sets as tensors hold them, built once for many calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "common/rans_tables.hpp"

namespace aicr {

// The set of `size` numbers: how many tables and entries per row, then frequencies, sizes, offsets and
// shifts. The last few sets are kept, found again by content. Safe from several threads. Throws
// std::invalid_argument if the numbers are no table set.
std::shared_ptr<const TableSet> cached_tables(const int32_t* numbers, size_t size);

}  // namespace aicr
