#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

extern "C" {
#include "base/date.h"
#include "market/field.h"
}

namespace {

field as_field(const std::string &text) {
    return {text.data(), static_cast<int32_t>(text.size())};
}

field_state number(const std::string &text, double *value, char delimiter = ',') {
    return field_number(value, as_field(text), delimiter);
}

TEST(Number, random_decimals_are_rounded_as_strtod_rounds) {
    std::mt19937_64 random(1);
    for (int i = 0; i < 200000; ++i) {
        int digits = 1 + static_cast<int>(random() % 19), point = static_cast<int>(random() % 20);
        std::string text;
        for (int k = 0; k < digits; ++k)
            text += static_cast<char>('0' + random() % 10);
        if (point < digits)
            text.insert(static_cast<size_t>(point), ".");
        double value;
        ASSERT_EQ(number(text, &value), FIELD_OK) << text;
        double expected = std::strtod(text.c_str(), nullptr);
        ASSERT_EQ(std::memcmp(&value, &expected, sizeof value), 0) << text;
    }
}

TEST(Number, halfway_cases_go_to_even) {
    for (const char *text : {"9007199254740993", "9007199254740995", "1.8014398509481986",
                             "4503599627370497.5", "0.5000000000000000277", "18014398509481985"}) {
        double value;
        ASSERT_EQ(number(text, &value), FIELD_OK);
        EXPECT_EQ(value, std::strtod(text, nullptr)) << text;
    }
}

TEST(Number, other_spellings_are_read) {
    const struct {
        const char *text;
        double value;
    } cases[] = {{"$185.64", 185.64},
                 {"$1,234,567.5", 1234567.5},
                 {"82,488,670", 82488670},
                 {"1.5e3", 1500},
                 {"2E-2", 0.02},
                 {"-3", -3},
                 {"-$3.25", -3.25},
                 {"$-3.25", -3.25},
                 {"+7", 7},
                 {".5", 0.5},
                 {"5.", 5},
                 {"00012", 12},
                 {"0", 0},
                 {"12345678901234567890123", 12345678901234567890123.0}};
    for (const auto &c : cases) {
        double value = -1;
        EXPECT_EQ(number(c.text, &value), FIELD_OK) << c.text;
        EXPECT_EQ(value, c.value) << c.text;
    }
}

TEST(Number, missing_values_are_told_from_bad_ones) {
    double value;
    for (const char *text : {"", "null", "NaN", "nan", "N/A", "NA", "None", "-"})
        EXPECT_EQ(number(text, &value), FIELD_EMPTY) << text;
    for (const char *text :
         {"abc",      "1.2.3",
          "1,23",     "12,3456",
          "1234,567", ",123",
          "1,234,",   "1e",
          "1e+",      "--1",
          "$$1",      "1 2",
          "0x10",     "inf",
          "1e999",    ".",
          "$",        "1.5%",
          "1.2M",     "5-",
          "+-1",      "1111111111111111111111111111111111111111111111111111111111111111111"})
        EXPECT_EQ(number(text, &value), FIELD_BAD) << text;
    EXPECT_EQ(number("1,234", &value, ';'), FIELD_BAD);
}

TEST(Date, every_form_is_read) {
    const struct {
        const char *text;
        date_form form;
    } cases[] = {{"2014-01-02", DATE_ISO},
                 {"2014/01/02", DATE_ISO},
                 {"2014-01-02 00:00:00-05:00", DATE_ISO},
                 {"2014-01-02T00:00:00Z", DATE_ISO},
                 {"01/02/2014", DATE_US},
                 {"1/2/2014", DATE_US},
                 {"20140102", DATE_COMPACT}};
    for (const auto &c : cases) {
        int32_t date = 0;
        date_form form = DATE_FORMS;
        EXPECT_EQ(field_date(&date, &form, as_field(c.text)), FIELD_OK) << c.text;
        EXPECT_EQ(form, c.form);
        EXPECT_EQ(date, 16072) << c.text;
    }
}

TEST(Date, what_is_no_day_is_refused) {
    int32_t date = 0;
    date_form form;
    for (const char *text : {"2014-02-29", "2014-13-01", "13/01/2014", "31/12/2014", "2014-1-2",
                             "14-01-02", "20140132", "2014-01-02x", "2014-01/02", "Jan 2, 2014",
                             "201401021", "1700-01-01", "2014", "2014-01-02T", "0", "1/2/14"})
        EXPECT_EQ(field_date(&date, &form, as_field(text)), FIELD_BAD) << text;
    for (const char *text : {"", "null"})
        EXPECT_EQ(field_date(&date, &form, as_field(text)), FIELD_EMPTY);
}

TEST(Field, lines_are_split_outside_quotes) {
    std::string line = "a, \"b,c\" ,,d\r";
    field fields[8];
    ASSERT_EQ(field_split(fields, 8, line.data(), line.data() + line.size(), ','), 4);
    EXPECT_EQ(std::string(fields[1].text, static_cast<size_t>(fields[1].length)), "b,c");
    EXPECT_EQ(fields[2].length, 0);
    EXPECT_EQ(std::string(fields[3].text, static_cast<size_t>(fields[3].length)), "d");
}

TEST(Field, quotes_out_of_place_are_noticed) {
    for (std::string line : {"a,\"b", "a,b\"c\"", "\"a\"b,c"})
        EXPECT_EQ(field_split(nullptr, 0, line.data(), line.data() + line.size(), ','), -1) << line;
}

} // namespace
