#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>

extern "C" {
#include "base/json.h"
}

namespace {

std::string finish(json *json) {
    std::string text(json->text.data, json->text.length);
    json_free(json);
    return text;
}

TEST(Json, nested_values_are_separated_and_closed) {
    json json = {};
    json_object(&json, nullptr);
    json_string(&json, "a", "x");
    json_array(&json, "b");
    json_int(&json, nullptr, -9223372036854775807LL - 1);
    json_bool(&json, nullptr, true);
    json_object(&json, nullptr);
    json_end(&json);
    json_end(&json);
    json_null(&json, "c");
    json_end(&json);
    EXPECT_EQ(finish(&json), R"({"a": "x", "b": [-9223372036854775808, true, {}], "c": null})");
}

TEST(Json, lines_break_the_outer_levels_only) {
    json json = {};
    json.lines = 1;
    json_object(&json, nullptr);
    json_array(&json, "b");
    json_int(&json, nullptr, 1);
    json_int(&json, nullptr, 2);
    json_end(&json);
    json_int(&json, "c", 3);
    json_end(&json);
    EXPECT_EQ(finish(&json), "{\n  \"b\": [1, 2],\n  \"c\": 3\n}");
}

TEST(Json, strings_are_escaped_and_bad_utf8_replaced) {
    json json = {};
    json_string(&json, nullptr, "\"\\\n\x01 \xc3\xa9 \xff \xed\xa0\x80 \xe2\x82");
    EXPECT_EQ(finish(&json), "\"\\\"\\\\\\u000a\\u0001 \xc3\xa9 \xef\xbf\xbd "
                             "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd \xef\xbf\xbd\xef\xbf\xbd\"");
}

TEST(Json, doubles_read_back_unchanged) {
    for (double value : {0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, -0.0, 123456789.125}) {
        json json = {};
        json_double(&json, nullptr, value);
        std::string text = finish(&json);
        EXPECT_EQ(std::strtod(text.c_str(), nullptr), value) << text;
        EXPECT_LE(text.size(), 24u);
    }
}

TEST(Json, short_doubles_stay_short) {
    json json = {};
    json_double(&json, nullptr, 0.1);
    EXPECT_EQ(finish(&json), "0.1");
}

TEST(Json, values_json_lacks_become_null) {
    json json = {};
    json_array(&json, nullptr);
    json_double(&json, nullptr, std::nan(""));
    json_double(&json, nullptr, -std::numeric_limits<double>::infinity());
    json_end(&json);
    EXPECT_EQ(finish(&json), "[null, null]");
}

TEST(Text, html_is_escaped) {
    text text = {};
    text_append_html(&text, "a<b> & \"c\"");
    text_append_html(&text, "");
    text_append_html(&text, "\"");
    EXPECT_STREQ(text.data, "a&lt;b&gt; &amp; &quot;c&quot;&quot;");
    text_free(&text);
}

} // namespace
