// The coder for Python. Arguments arrive checked by aicr_ext/codec/rans.py, which is the public face; what is
// checked here is what memory safety needs. The interpreter lock is released while symbols are coded.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings/module.hpp"
#include "common/crc32c.hpp"
#include "common/rans_decoder.hpp"
#include "common/rans_encoder.hpp"
#include "common/rans_kernels.hpp"
#include "common/rans_tables.hpp"
#include "common/stream_error.hpp"

namespace py = pybind11;

namespace aicr {
namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

std::shared_ptr<TableSet> make_tables(const Array<int32_t>& frequencies, const Array<int32_t>& sizes,
                                      const Array<int32_t>& offsets, const Array<uint8_t>& shifts) {
  if (frequencies.ndim() != 2 || sizes.ndim() != 1 || offsets.ndim() != 1 || shifts.ndim() != 1) {
    throw std::invalid_argument("frequencies must have two dimensions; sizes, offsets and shifts one each");
  }
  const py::ssize_t tables = frequencies.shape(0);
  if (sizes.size() != tables || offsets.size() != tables || shifts.size() != tables) {
    throw std::invalid_argument("sizes, offsets and shifts must have one value per row of frequencies");
  }
  return std::make_shared<TableSet>(frequencies.data(), static_cast<size_t>(frequencies.shape(1)),
                                    sizes.data(), offsets.data(), shifts.data(), static_cast<size_t>(tables));
}

void push(RansEncoder& encoder, const Array<int16_t>& symbols, const Array<uint8_t>& index,
          const std::shared_ptr<TableSet>& tables) {
  if (symbols.size() != index.size())
    throw std::invalid_argument("symbols and index must have the same length");
  const int16_t* symbol_data = symbols.data();
  const uint8_t* index_data = index.data();
  const auto count = static_cast<size_t>(symbols.size());
  py::gil_scoped_release unlocked;
  encoder.push(symbol_data, index_data, count, tables);
}

py::bytes finish_encoder(const RansEncoder& encoder) {
  std::vector<uint8_t> bytes;
  {
    py::gil_scoped_release unlocked;
    bytes = encoder.finish();
  }
  return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::unique_ptr<RansDecoder> make_decoder(const py::buffer& data) {
  const py::buffer_info info = data.request();
  if (info.ndim != 1 || info.itemsize != 1 || (info.size > 0 && info.strides[0] != 1)) {
    throw std::invalid_argument("data must be a contiguous buffer of bytes");
  }
  return std::make_unique<RansDecoder>(static_cast<const uint8_t*>(info.ptr), static_cast<size_t>(info.size));
}

void pop(RansDecoder& decoder, const Array<uint8_t>& index, const std::shared_ptr<TableSet>& tables,
         Array<int16_t>& symbols) {
  if (symbols.size() != index.size())
    throw std::invalid_argument("symbols and index must have the same length");
  int16_t* symbol_data = symbols.mutable_data();  // throws if it is read-only
  const uint8_t* index_data = index.data();
  const auto count = static_cast<size_t>(index.size());
  py::gil_scoped_release unlocked;
  decoder.pop(index_data, count, *tables, symbol_data);
}

const char* python_name(StreamErrorKind kind) {
  switch (kind) {
    case StreamErrorKind::kTruncated:
      return "TruncatedError";
    case StreamErrorKind::kChecksum:
      return "ChecksumError";
    case StreamErrorKind::kArgument:
      return "ValueError";
    case StreamErrorKind::kFormat:
      break;
  }
  return "FormatError";
}

// Raises the class of aicr_ext.errors that the kind names.
void translate(std::exception_ptr pending) {
  try {
    if (pending) std::rethrow_exception(pending);
  } catch (const StreamError& error) {
    const py::object type = py::module_::import("aicr_ext.errors").attr(python_name(error.kind()));
    PyErr_SetString(type.ptr(), error.what());
  }
}

// Name of the error and text, by the number of the fault.
std::vector<std::pair<std::string, std::string>> stream_faults() {
  std::vector<std::pair<std::string, std::string>> faults;
  for (const StreamFaultInfo& info : kStreamFaults) faults.emplace_back(python_name(info.kind), info.message);
  return faults;
}

uint32_t crc32c_of(const py::bytes& data, bool portable) {
  const std::string_view view = data;
  return portable ? crc32c_portable(0, view.data(), view.size()) : crc32c(0, view.data(), view.size());
}

}  // namespace

void bind_coder(py::module_& module) {
  py::register_local_exception_translator(&translate);
  module.def("crc32c", &crc32c_of, py::arg("data"), py::arg("portable") = false,
             "CRC-32C of bytes; portable=True keeps off the processor's own instruction.");
  module.def(
      "coder_isa", [] { return std::string(active_kernels().name); },
      "Name of the instruction set the coder uses.");
  module.def("coder_isas", &available_kernels, "Names of those it could use here, slowest first.");
  module.def("select_coder_isa", &select_kernels, py::arg("name"),
             "Fix the instruction set for coders made from now on; '' leaves it to AICR_ISA again.");
  module.def("stream_faults", &stream_faults,
             "Error and text of each number that decoding a stream may end with; 0 is none.");
  py::class_<TableSet, std::shared_ptr<TableSet>>(module, "RansTables")
      .def(py::init(&make_tables), py::arg("frequencies").noconvert(), py::arg("sizes").noconvert(),
           py::arg("offsets").noconvert(), py::arg("shifts").noconvert());
  py::class_<RansEncoder>(module, "RansEncoder")
      .def(py::init([](int lanes) { return std::make_unique<RansEncoder>(lanes); }), py::arg("lanes") = 0)
      .def("push", &push, py::arg("symbols").noconvert(), py::arg("index").noconvert(), py::arg("tables"))
      .def("finish", &finish_encoder);
  py::class_<RansDecoder>(module, "RansDecoder")
      .def(py::init(&make_decoder), py::arg("data"))
      .def("pop", &pop, py::arg("index").noconvert(), py::arg("tables"), py::arg("symbols").noconvert())
      .def("finish", &RansDecoder::finish);
}

}  // namespace aicr
