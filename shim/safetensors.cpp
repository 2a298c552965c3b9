#include "safetensors.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>

#include "guard.h"

namespace rp {
namespace {

constexpr uint64_t max_header = 1 << 20;
constexpr size_t max_entries = 1024;

// A reader for the JSON that safetensors headers consist of: objects, arrays of non-negative
// integers, strings. No well-kept JSON library is on every machine that this library builds on.
class HeaderReader {
  public:
    HeaderReader(std::string_view text, const std::string &path) : text_(text), path_(path) {}

    [[noreturn]] void refuse(const char *what) const {
        throw error(RP_ERROR_FORMAT,
                    "%s: header byte %zu: %s; the file is damaged or not a "
                    "checkpoint",
                    path_.c_str(), at_, what);
    }

    void expect(char wanted) {
        if (!accept(wanted)) {
            const char message[] = {'e', 'x', 'p', 'e', 'c', 't', 'e', 'd', ' ', wanted, '\0'};
            refuse(message);
        }
    }

    bool accept(char wanted) {
        skip_space();
        if (at_ < text_.size() && text_[at_] == wanted) {
            ++at_;
            return true;
        }
        return false;
    }

    void expect_end() {
        skip_space();
        if (at_ != text_.size()) {
            refuse("text after the end of the object");
        }
    }

    // Calls member(name) for each member, which must read the value; refuses repeated names.
    template <typename Member> void object(Member &&member) {
        std::vector<std::string> names;
        expect('{');
        if (accept('}')) {
            return;
        }
        do {
            names.push_back(string());
            if (names.size() > max_entries) {
                refuse("too many members");
            }
            if (std::find(names.begin(), names.end() - 1, names.back()) != names.end() - 1) {
                refuse("a name appears twice");
            }
            expect(':');
            member(names.back());
        } while (accept(','));
        expect('}');
    }

    std::vector<int64_t> integers() {
        std::vector<int64_t> values;
        expect('[');
        if (accept(']')) {
            return values;
        }
        do {
            values.push_back(integer());
            if (values.size() > 8) {
                refuse("too many numbers in a list");
            }
        } while (accept(','));
        expect(']');
        return values;
    }

    std::string string() {
        std::string value;
        expect('"');
        for (;;) {
            if (at_ == text_.size()) {
                refuse("a string does not end");
            }
            const char c = text_[at_++];
            if (c == '"') {
                return value;
            }
            if (static_cast<unsigned char>(c) < 0x20) {
                refuse("a control character in a string");
            }
            value += c == '\\' ? escape() : std::string(1, c);
        }
    }

  private:
    void skip_space() {
        while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_]) && text_[at_] != '\0') {
            ++at_;
        }
    }

    int64_t integer() {
        skip_space();
        const size_t begin = at_;
        int64_t value = 0;
        for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
            if (__builtin_mul_overflow(value, int64_t{10}, &value) ||
                __builtin_add_overflow(value, int64_t{text_[at_] - '0'}, &value)) {
                refuse("a number is too large");
            }
        }
        if (at_ == begin || (text_[begin] == '0' && at_ - begin > 1)) {
            refuse("expected a non-negative whole number");
        }
        return value;
    }

    std::string escape() {
        const char c = at_ < text_.size() ? text_[at_++] : '\0';
        switch (c) {
        case '"':
        case '\\':
        case '/':
            return std::string(1, c);
        case 'b':
            return "\b";
        case 'f':
            return "\f";
        case 'n':
            return "\n";
        case 'r':
            return "\r";
        case 't':
            return "\t";
        case 'u':
            return utf8(code_unit());
        default:
            refuse("an unknown escape in a string");
        }
    }

    uint32_t code_unit() {
        uint32_t value = 0;
        for (int i = 0; i < 4; ++i) {
            const char c = at_ < text_.size() ? text_[at_++] : '\0';
            const char *digits = "0123456789abcdef";
            const char *digit = c ? std::strchr(digits, c | 0x20) : nullptr;
            if (!digit || (c >= 'P' && c <= 'Y')) {
                refuse("a \\u escape needs four hexadecimal digits");
            }
            value = value << 4 | static_cast<uint32_t>(digit - digits);
        }
        return value;
    }

    std::string utf8(uint32_t code) {
        if (code >= 0xd800 && code < 0xdc00 && text_.substr(at_, 2) == "\\u") {
            at_ += 2;
            const uint32_t low = code_unit();
            if (low < 0xdc00 || low > 0xdfff) {
                refuse("half of a surrogate pair");
            }
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        } else if (code >= 0xd800 && code < 0xe000) {
            refuse("half of a surrogate pair");
        }
        std::string out;
        auto put = [&out](uint32_t byte) { out += static_cast<char>(byte); };
        if (code < 0x80) {
            put(code);
        } else if (code < 0x800) {
            put(0xc0 | code >> 6);
            put(0x80 | (code & 0x3f));
        } else if (code < 0x10000) {
            put(0xe0 | code >> 12);
            put(0x80 | (code >> 6 & 0x3f));
            put(0x80 | (code & 0x3f));
        } else {
            put(0xf0 | code >> 18);
            put(0x80 | (code >> 12 & 0x3f));
            put(0x80 | (code >> 6 & 0x3f));
            put(0x80 | (code & 0x3f));
        }
        return out;
    }

    std::string_view text_;
    const std::string &path_;
    size_t at_ = 0;
};

struct Entry {
    std::string name;
    int64_t begin, end;
};

Entry read_tensor(HeaderReader &reader, const std::string &name, Tensor &tensor) {
    std::vector<int64_t> offsets;
    reader.object([&](const std::string &key) {
        if (key == "dtype") {
            tensor.dtype = reader.string();
        } else if (key == "shape") {
            tensor.shape = reader.integers();
        } else if (key == "data_offsets") {
            offsets = reader.integers();
        } else {
            reader.refuse("unknown member of a tensor");
        }
    });
    const int64_t element = tensor.dtype == "F32" ? 4 : tensor.dtype == "I64" ? 8 : 0;
    if (element == 0) {
        reader.refuse("a tensor's dtype is neither F32 nor I64");
    }
    int64_t size = element;
    for (const int64_t extent : tensor.shape) {
        if (__builtin_mul_overflow(size, extent, &size)) {
            reader.refuse("a tensor's shape overflows");
        }
    }
    if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] - offsets[0] != size) {
        reader.refuse("a tensor's data_offsets do not match its shape");
    }
    return {name, offsets[0], offsets[1]};
}

void append_quoted(std::string &out, const std::string &text) {
    out += '"';
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            char escaped[8];
            std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(c));
            out += escaped;
        } else {
            out += c;
        }
    }
    out += '"';
}

} // namespace

Safetensors safetensors_parse(std::string file, const std::string &path) {
    Safetensors content;
    content.file = std::move(file);
    const std::string_view all = content.file;
    uint64_t length = 0;
    if (all.size() < sizeof length) {
        throw error(RP_ERROR_FORMAT, "%s: %zu bytes long; too short for a checkpoint", path.c_str(),
                    all.size());
    }
    std::memcpy(&length, all.data(), sizeof length);
    if (length > max_header || length > all.size() - sizeof length) {
        throw error(RP_ERROR_FORMAT,
                    "%s: header length %llu exceeds the file; it is damaged or not a checkpoint",
                    path.c_str(), static_cast<unsigned long long>(length));
    }
    HeaderReader reader(all.substr(sizeof length, length), path);
    const std::string_view data = all.substr(sizeof length + length);
    std::vector<Entry> entries;
    reader.object([&](const std::string &name) {
        if (name == "__metadata__") {
            reader.object([&](const std::string &key) { content.metadata[key] = reader.string(); });
        } else {
            entries.push_back(read_tensor(reader, name, content.tensors[name]));
        }
    });
    reader.expect_end();

    std::sort(entries.begin(), entries.end(), [](const Entry &a, const Entry &b) {
        return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
    });
    int64_t end = 0;
    for (const Entry &entry : entries) {
        if (entry.begin != end) {
            throw error(RP_ERROR_FORMAT,
                        "%s: tensor %s begins at byte %lld, expected %lld: "
                        "tensors overlap or leave a gap",
                        path.c_str(), entry.name.c_str(), static_cast<long long>(entry.begin),
                        static_cast<long long>(end));
        }
        end = entry.end;
    }
    if (static_cast<uint64_t>(end) != data.size()) {
        throw error(RP_ERROR_FORMAT,
                    "%s: %zu bytes of tensors, expected %lld; the file is "
                    "truncated or has trailing bytes",
                    path.c_str(), data.size(), static_cast<long long>(end));
    }
    for (const Entry &entry : entries) {
        content.tensors[entry.name].bytes = data.substr(
            static_cast<size_t>(entry.begin), static_cast<size_t>(entry.end - entry.begin));
    }
    return content;
}

std::string safetensors_format(const Safetensors &content) {
    std::string header = "{\"__metadata__\":{";
    const char *separator = "";
    for (const auto &[key, value] : content.metadata) {
        header += separator;
        append_quoted(header, key);
        header += ':';
        append_quoted(header, value);
        separator = ",";
    }
    header += '}';
    // Wider types first keeps every tensor aligned to its element.
    std::vector<std::pair<std::string, const Tensor *>> ordered;
    for (const char *dtype : {"I64", "F32"}) {
        for (const auto &[name, tensor] : content.tensors) {
            if (tensor.dtype == dtype) {
                ordered.emplace_back(name, &tensor);
            }
        }
    }
    size_t offset = 0;
    for (const auto &[name, pointer] : ordered) {
        const Tensor &tensor = *pointer;
        header += ',';
        append_quoted(header, name);
        header += ":{\"dtype\":\"" + tensor.dtype + "\",\"shape\":[";
        for (size_t i = 0; i < tensor.shape.size(); ++i) {
            header += (i ? "," : "") + std::to_string(tensor.shape[i]);
        }
        header += "],\"data_offsets\":[" + std::to_string(offset) + ',' +
                  std::to_string(offset + tensor.bytes.size()) + "]}";
        offset += tensor.bytes.size();
    }
    header += '}';
    header.resize((header.size() + 7) / 8 * 8, ' ');

    const uint64_t length = header.size();
    std::string file(reinterpret_cast<const char *>(&length), sizeof length);
    file += header;
    file.reserve(file.size() + offset);
    for (const auto &[name, tensor] : ordered) {
        file += tensor->bytes;
    }
    return file;
}

} // namespace rp
