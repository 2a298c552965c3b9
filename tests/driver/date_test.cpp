#include <gtest/gtest.h>

#include <string>

extern "C" {
#include "base/date.h"
}

static std::string format(int32_t days) {
    char text[DATE_SIZE];
    date_format(text, days);
    return text;
}

TEST(Date, known_days_are_formatted) {
    EXPECT_EQ(format(0), "1970-01-01");
    EXPECT_EQ(format(19358), "2023-01-01");
    EXPECT_EQ(format(11016), "2000-02-29");
    EXPECT_EQ(format(-1), "1969-12-31");
}

TEST(Date, every_day_of_two_centuries_reads_back_and_follows_the_one_before) {
    std::string before;
    for (int32_t days = -36525; days < 36525; days++) {
        std::string text = format(days);
        int32_t back = 0;
        ASSERT_TRUE(date_parse(text.c_str(), &back)) << text;
        ASSERT_EQ(back, days);
        ASSERT_LT(before, text);
        before = text;
    }
}

TEST(Date, what_is_no_day_is_refused) {
    int32_t days = 7;
    for (const char *text : {"", "2021-02-29", "1900-02-29", "2021-13-01", "2021-00-10", "2021-1-1",
                             "2021-01-32", "2021/01/01", "2021-01-01 ", "20210101", "0000-01-01"}) {
        EXPECT_FALSE(date_parse(text, &days)) << text;
    }
    EXPECT_EQ(days, 7);
}
