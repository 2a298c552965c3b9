// The safetensors container: 8 bytes little-endian header length n; n bytes of JSON, one object
// that maps each tensor's name to {"dtype", "shape", "data_offsets"} and "__metadata__" to an
// object of strings; then the tensors' bytes, little-endian, offsets counted from the header's end.
// Format: https://github.com/huggingface/safetensors (README, "Format").
//
// Policy: strict. Anything this program would not write (gaps, overlaps, unknown types, repeated
// names, trailing bytes) is refused by name; nothing is allocated before its size was checked.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace rp {

struct Tensor {
    std::string dtype; // "F32" or "I64"
    std::vector<int64_t> shape;
    std::string_view bytes; // in Safetensors::file when parsed, in the caller's memory to write
};

struct Safetensors {
    std::string file; // the bytes that parsed tensors point into
    std::map<std::string, Tensor> tensors;
    std::map<std::string, std::string> metadata;
};

// Throws Error RP_ERROR_FORMAT naming `path` (for the message only) and what is wrong.
Safetensors safetensors_parse(std::string file, const std::string &path);

// Tensors in name order, header padded with spaces to a multiple of 8 bytes.
std::string safetensors_format(const Safetensors &content);

} // namespace rp
