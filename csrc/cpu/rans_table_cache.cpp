#include "cpu/rans_table_cache.hpp"

#include <algorithm>
#include <deque>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace aicr {
namespace {

constexpr size_t kKept = 16;  // a set takes up to half a megabyte

struct Entry {
  std::vector<int32_t> numbers;
  std::shared_ptr<const TableSet> tables;
};

std::mutex mutex;
std::deque<Entry> entries;  // the last one used comes first

std::shared_ptr<const TableSet> build(const int32_t* numbers, size_t size) {
  const int64_t tables = size < 2 ? 0 : numbers[0], width = size < 2 ? 0 : numbers[1];
  if (tables < 1 || tables > kMaxTables || width < 0 || width > kMaxEntries ||
      size != static_cast<size_t>(2 + tables * (width + 3))) {
    throw std::invalid_argument(
        "tables must be the numbers of a table set, as TableSet.tensor gives them, got " +
        std::to_string(size) + " numbers for " + std::to_string(tables) + " tables of " +
        std::to_string(width));
  }
  const int32_t* const frequencies = numbers + 2;
  const int32_t* const sizes = frequencies + tables * width;
  const int32_t *const offsets = sizes + tables, *const shifts = offsets + tables;
  std::vector<uint8_t> narrow;
  for (int64_t t = 0; t < tables; ++t) {  // what does not fit a byte is refused like 255
    narrow.push_back(shifts[t] < 0 || shifts[t] > 255 ? 255 : static_cast<uint8_t>(shifts[t]));
  }
  return std::make_shared<const TableSet>(frequencies, static_cast<size_t>(width), sizes, offsets,
                                          narrow.data(), static_cast<size_t>(tables));
}

}  // namespace

std::shared_ptr<const TableSet> cached_tables(const int32_t* numbers, size_t size) {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto same = [&](const Entry& entry) {
      return std::equal(entry.numbers.begin(), entry.numbers.end(), numbers, numbers + size);
    };
    const auto found = std::find_if(entries.begin(), entries.end(), same);
    if (found != entries.end()) {
      std::rotate(entries.begin(), found, found + 1);
      return entries.front().tables;
    }
  }
  Entry made{std::vector<int32_t>(numbers, numbers + size), build(numbers, size)};
  std::shared_ptr<const TableSet> tables = made.tables;
  const std::lock_guard<std::mutex> lock(mutex);  // two threads may both have built it: no harm
  entries.push_front(std::move(made));
  if (entries.size() > kKept) entries.pop_back();
  return tables;
}

}  // namespace aicr
