#include <gtest/gtest.h>

#include <string>

extern "C" {
#include "base/result.h"
}

namespace {

std::string command_of(std::vector<std::string> arguments) {
    std::vector<char *> argv;
    for (std::string &argument : arguments) {
        argv.push_back(argument.data());
    }
    json json = {};
    result_begin(&json, static_cast<int>(argv.size()), argv.data(), nullptr);
    json_end(&json);
    const std::string text(json.text.data, json.text.length);
    json_free(&json);
    const size_t first = text.find("\"command\": \"") + 12;
    return text.substr(first, text.find('"', first) - first);
}

TEST(Result, command_shows_the_last_part_of_absolute_paths) {
    EXPECT_EQ(command_of({"evaluate", "--prices", "/data/a/prices", "--cost-bps=5"}),
              "return-predictor evaluate --prices prices --cost-bps=5");
    EXPECT_EQ(
        command_of({"evaluate", "--out=/data/r/report.json", "--checkpoint", "/a/b,c/d,/e/f"}),
        "return-predictor evaluate --out=report.json --checkpoint b,c/d,f");
    EXPECT_EQ(command_of({"evaluate", "--prices", "/data/a/prices/"}),
              "return-predictor evaluate --prices prices/");
    EXPECT_EQ(command_of({"evaluate", "/", "", "a/b"}), "return-predictor evaluate /  a/b");
}

} // namespace
