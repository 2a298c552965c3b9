// Every shape of price file that is recognised, and every mistake that is refused.
#include <gtest/gtest.h>

#include <string>

#include "price_text.h"

extern "C" {
#include "market/price_file.h"
}

namespace {

class Parsed {
  public:
    explicit Parsed(const std::string &content, bool skip = false,
                    const char *path = "x/AAPL.csv") {
        market_options options = {skip, false};
        error error = {""};
        // A copy of exactly this size, so that a read past the end is noticed.
        std::vector<char> data(content.begin(), content.end());
        ok = price_file_parse(&file, path, data.data(), data.size(), &options, &error);
        message = error.message;
    }
    ~Parsed() { price_file_free(&file); }
    Parsed(const Parsed &) = delete;
    Parsed &operator=(const Parsed &) = delete;

    std::string rows(int series = 0) const {
        std::string out;
        const price_series &s = file.series[series];
        for (int32_t i = 0; i < s.days; ++i) {
            char line[100];
            snprintf(line, sizeof line, "%s %.10g %.10g;", date_text(s.dates[i]).c_str(),
                     s.adj_close[i], s.volume[i]);
            out += line;
        }
        return out;
    }
    std::string bad() const { return file.bad.data ? file.bad.data : ""; }

    price_file file = {};
    bool ok = false;
    std::string message;
};

const char *const two_rows = "2014-01-02 10.5 1000;2014-01-03 11 1200;";

TEST(PriceFile, canonical_rows_are_read) {
    Parsed parsed("date,open,high,low,close,adj_close,volume\n"
                  "2014-01-02,2,3,1,20,10.5,1000\n2014-01-03,2,3,1,21,11,1200\n");
    ASSERT_TRUE(parsed.ok) << parsed.message;
    EXPECT_EQ(parsed.rows(), two_rows);
    EXPECT_STREQ(parsed.file.series[0].name, "AAPL");
    EXPECT_TRUE(parsed.file.adjusted);
    EXPECT_FALSE(parsed.file.cut_short);
}

TEST(PriceFile, every_known_shape_gives_the_same_rows) {
    const struct {
        const char *what, *text;
    } shapes[] = {
        {"other order and case", "Volume,Adj Close,DATE,Close\n1000,10.5,2014-01-02,20\n"
                                 "1200,11,2014-01-03,21\n"},
        {"auto_adjust", "Date,Open,High,Low,Close,Volume\n2014-01-02,9,12,8,10.5,1000\n"
                        "2014-01-03,9,12,8,11,1200\n"},
        {"nasdaq", "Date,Close/Last,Volume,Open,High,Low\n"
                   "01/03/2014,$11.00,\"1,200\",$9,$12,$8\n"
                   "01/02/2014,$10.50,\"1,000\",$9,$12,$8\n"},
        {"quoted", "\"Date\",\"Close/Last\",\"Volume\"\r\n\"01/03/2014\",\"$11\",\"1,200\"\r\n"
                   "\"01/02/2014\",\"$10.50\",\"1,000\"\r\n"},
        {"byte-order mark and CRLF",
         "\xef\xbb\xbf"
         "date,close,volume\r\n2014-01-02,10.5,1000\r\n2014-01-03,11,1200\r\n"},
        {"three header lines", "Price,Close,High,Low,Open,Volume\nTicker,AAPL,AAPL,AAPL,AAPL,AAPL\n"
                               "Date,,,,,\n2014-01-02,10.5,12,8,9,1000\n"
                               "2014-01-03,11,12,8,9,1200\n"},
        {"three header lines, with adjusted close",
         "Price,Adj Close,Close,Volume\nTicker,AAPL,AAPL,AAPL\nDate,,,\n"
         "2014-01-02,10.5,20,1000\n2014-01-03,11,21,1200\n"},
        {"ticker line first", "Ticker,AAPL,AAPL\nPrice,Close,Volume\nDate,,\n2014-01-02,10.5,1000\n"
                              "2014-01-03,11,1200\n"},
        {"two header lines", "Date,Close,Volume\n,AAPL,AAPL\n2014-01-02,10.5,1000\n"
                             "2014-01-03,11,1200\n"},
        {"time of day and more columns", "Date,Open,High,Low,Close,Volume,Dividends,Stock Splits\n"
                                         "2014-01-02 00:00:00-05:00,9,12,8,10.5,1000,0.0,0.0\n"
                                         "2014-01-03 00:00:00-05:00,9,12,8,11,1200,0.0,0.0\n"},
        {"index without a name", ",Close,Volume\n2014-01-02,10.5,1000\n2014-01-03,11,1200\n"},
        {"stooq", "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>\n"
                  "AAPL,D,20140102,000000,9,12,8,10.5,1000,0\n"
                  "AAPL,D,20140103,000000,9,12,8,11,1200,0\n"},
        {"long file", "date,close,volume,Name\n2014-01-02,10.5,1000,AAPL\n"
                      "2014-01-03,11,1200,AAPL\n"},
        {"symbol before name", "name,symbol,date,close,volume\nApple,AAPL,2014-01-02,10.5,1000\n"
                               "Apple,AAPL,2014-01-03,11,1200\n"},
        {"semicolons", "date;close;volume\n2014-01-02;10.5;1000\n2014-01-03;11;1200\n"},
        {"tabs", "date\tclose\tvolume\n2014-01-02\t10.5\t1000\n2014-01-03\t11\t1200\n"},
        {"blank lines", "date,close,volume\n\n2014-01-02,10.5,1000\n2014-01-03,11,1200\n\n\r\n"},
        {"no last line end", "date,close,volume\n2014-01-02,10.5,1000\n2014-01-03,11,1200"},
    };
    for (const auto &shape : shapes) {
        Parsed parsed(shape.text);
        ASSERT_TRUE(parsed.ok) << shape.what << ": " << parsed.message;
        ASSERT_EQ(parsed.file.count, 1) << shape.what;
        EXPECT_EQ(parsed.rows(), two_rows) << shape.what;
        EXPECT_STREQ(parsed.file.series[0].name, "AAPL") << shape.what;
    }
}

TEST(PriceFile, tickers_side_by_side_are_told_apart) {
    Parsed parsed("Price,Close,Close,Volume,Volume\nTicker,AAPL,MSFT,AAPL,MSFT\nDate,,,,\n"
                  "2014-01-02,10.5,30,1000,5\n2014-01-03,11,,1200,\n2014-01-06,12,31,1300,6\n");
    ASSERT_TRUE(parsed.ok) << parsed.message;
    ASSERT_EQ(parsed.file.count, 2);
    EXPECT_EQ(parsed.rows(0), "2014-01-02 10.5 1000;2014-01-03 11 1200;2014-01-06 12 1300;");
    EXPECT_EQ(parsed.rows(1), "2014-01-02 30 5;2014-01-06 31 6;");
    EXPECT_EQ(parsed.file.bad_rows, 0);
}

TEST(PriceFile, tickers_in_a_column_may_interleave) {
    std::string text = "ticker,date,close,volume\n";
    for (int day = 0; day < 3; ++day)
        for (int ticker = 0; ticker < 200; ++ticker)
            text += "T" + std::to_string(ticker) + "," + date_text(weekday(day)) + "," +
                    std::to_string(ticker + 1) + "," + std::to_string(day) + "\n";
    Parsed parsed(text);
    ASSERT_TRUE(parsed.ok) << parsed.message;
    ASSERT_EQ(parsed.file.count, 200);
    EXPECT_STREQ(parsed.file.series[137].name, "T137");
    EXPECT_EQ(parsed.rows(137), "2014-01-02 138 0;2014-01-03 138 1;2014-01-06 138 2;");
}

TEST(PriceFile, mistakes_name_line_column_value_and_reason) {
    const std::string header = "date,close,volume\n", first = "2014-01-02,10.5,1000\n";
    const struct {
        std::string text;
        const char *message;
    } cases[] = {
        {header + first + "2014-01-03,abc,1\n", "line 3, column close: 'abc' is not a number"},
        {header + first + "2014-01-03,-1,1\n", "line 3, column close: '-1' is not a positive"},
        {header + first + "2014-01-03,0,1\n", "line 3, column close: '0' is not a positive"},
        {header + first + "2014-01-03,0.00,1\n", "line 3, column close: '0.00' is not a positive"},
        {header + first + "2014-01-03,,1\n", "line 3, column close: '' is no value"},
        {header + first + "2014-01-03,null,1\n", "line 3, column close: 'null' is no value"},
        {header + first + "2014-01-03,NaN,1\n", "line 3, column close: 'NaN' is no value"},
        {header + first + "2014-01-03,1e13,1\n", "'1e13' is too large for a price"},
        {header + first + "2014-01-03,1e-10,1\n", "'1e-10' is too small for a price"},
        {header + first + "2014-01-03,11,-5\n", "line 3, column volume: '-5' is negative"},
        {header + first + "2014-01-03,11,\n", "line 3, column volume: '' is no value"},
        {header + first + "2014-02-30,11,1\n", "line 3, column date: '2014-02-30' is not a date"},
        {header + first + ",11,1\n", "line 3, column date: '' is no date"},
        {header + first + "2014-01-03,11\n", "fewer fields than the header"},
        {header + first + "2014-01-03,1,234,5\n", "more fields than the header"},
        {header + first + "2014-01-03,\"11,5\n", "a quote out of place"},
        {header + first + first,
         "line 3, column date: '2014-01-02' is there twice, first on line 2"},
        {header + first + "2014-01-06,1,1\n2014-01-03,1,1\n2014-01-07,1,1\n",
         "line 4, column date: '2014-01-03' is out of order"},
        {"date,open,close,volume\n2014-01-02,x,10.5,1\n", "column open: 'x' is not a number"},
        {"<TICKER>,<PER>,<DATE>,<CLOSE>,<VOL>\nA,5,20140102,1,1\n",
         "column period: '5' is not D, daily"},
        {"ticker,date,close,volume\n,2014-01-02,1,1\n", "column ticker: '' is not a ticker"},
        {"date;close;volume\n2014-01-02;1,5;10\n",
         "'1,5' is not a number; a decimal comma has to be a point"},
        {header + "2014-01-02,\"10,51\",10\n", "'10,51' is not a number; a decimal comma"},
        {header + first + "2014-12-03,1,1\n2014-01-06,1,1\n2014-01-07,1,1\n",
         "line 3, column date: '2014-12-03' is later than the days after it"},
        {"date,high,low,close,volume\n2014-01-02,9,10,9.5,1\n",
         "line 2, column high: '9' is below the day's low"},
    };
    for (const auto &c : cases) {
        Parsed parsed(c.text);
        EXPECT_FALSE(parsed.ok);
        EXPECT_NE(parsed.message.find(c.message), std::string::npos) << parsed.message;
        EXPECT_EQ(parsed.message.find("x/AAPL.csv: line "), 0u) << parsed.message;
        EXPECT_NE(parsed.message.find("--skip-bad-rows"), std::string::npos) << parsed.message;
    }
}

TEST(PriceFile, bad_rows_are_counted_when_asked) {
    Parsed parsed("date,close,volume\n2014-01-02,10.5,1000\n2014-01-02,10.5,1000\n"
                  "2014-01-03,11,1200\n2014-01-06,null,1\n2014-01-01,3,3\n",
                  true);
    ASSERT_TRUE(parsed.ok) << parsed.message;
    EXPECT_EQ(parsed.rows(), two_rows);
    EXPECT_EQ(parsed.file.bad_rows, 3);
    EXPECT_NE(parsed.bad().find("line 5, column close: 'null' is no value; row left out"),
              std::string::npos);
}

TEST(PriceFile, one_wrong_date_costs_one_row) {
    const std::string header = "date,close,volume\n", first = "2014-01-02,10.5,1000\n",
                      second = "2014-01-03,11,1200\n";
    const std::string third = "2014-01-06,12,1300\n";
    for (const std::string wrong : {"2041-01-02,1,1\n", "2012-01-02,1,1\n"})
        for (const std::string &text :
             {header + wrong + first + second + third, header + first + wrong + second + third,
              header + first + second + wrong + third}) {
            Parsed parsed(text, true);
            ASSERT_TRUE(parsed.ok) << parsed.message;
            // A first row from the past is just an early one.
            const bool early = text.find(header + "2012") == 0;
            EXPECT_EQ(parsed.file.bad_rows, early ? 0 : 1) << text;
            EXPECT_EQ(parsed.file.series[0].days, early ? 4 : 3) << text;
        }
}

TEST(PriceFile, every_row_turned_around_or_twice_is_counted) {
    std::string rows, text = "date,close,volume\n";
    for (int day = 0; day < 20; ++day)
        rows += date_text(weekday(day)) + ",10,1\n";
    Parsed twice(text + rows + rows, true);
    ASSERT_TRUE(twice.ok);
    EXPECT_EQ(twice.file.series[0].days, 20);
    EXPECT_EQ(twice.file.bad_rows, 20);
}

TEST(PriceFile, days_before_months_are_refused_even_when_bad_rows_are_skipped) {
    // The days up to the 12th could pass for months.
    std::string text = "date,close,volume\n";
    for (const char *date : {"10/01/2014", "11/01/2014", "12/01/2014", "13/01/2014", "14/01/2014"})
        text += std::string(date) + ",10,1\n";
    for (bool skip : {false, true}) {
        Parsed parsed(text, skip);
        EXPECT_FALSE(parsed.ok);
        EXPECT_NE(parsed.message.find("line 5"), std::string::npos) << parsed.message;
    }
    Parsed skipped(text, true);
    EXPECT_NE(skipped.message.find("day first (DD/MM/YYYY)"), std::string::npos);
    // One such date among months first is a bad row.
    Parsed one("date,close,volume\n01/10/2014,1,1\n01/13/2014,1,1\n14/01/2014,1,1\n", true);
    ASSERT_TRUE(one.ok) << one.message;
    EXPECT_EQ(one.file.bad_rows, 1);
}

TEST(PriceFile, what_is_no_price_file_is_called_by_name) {
    const struct {
        std::string text;
        const char *message;
    } cases[] = {
        {"", "empty"},
        {"\n \r\n", "empty"},
        {"\xef\xbb\xbf", "empty"},
        {std::string("date,close\0,volume\n", 19), "binary, not text: a NUL at byte 10"},
        {std::string("\xff\xfe"
                     "d\0a\0",
                     6),
         "UTF-16"},
        {"date,close,volume\r2014-01-02,1,1\r", "lines end as on old Macs"},
        {"<!DOCTYPE html><html>", "a web page"},
        {"  <HTML>", "a web page"},
        {"{\"chart\":{}}", "JSON"},
        {"hello world\n", "no column is named date; the line is 'hello world'"},
        {"2014-01-02,1,2\n", "no column is named date"},
        {"date,close\n2014-01-02,1\n", "no column is named volume"},
        {"date,open,volume\n2014-01-02,1,1\n", "no column is named close"},
        {"date,close,close,volume\n", "columns 2 and 3 are both 'close'"},
        {"date,date,close,volume\n", "columns 1 and 2 are both 'date'"},
        {"date,\"close,volume\n", "a quote is out of place"},
        {"date,close,volume\n", "a header and no sound row"},
        {"Price,Close,Volume\nTicker,,\nDate,,\n", "a ticker of 1 to 31 bytes"},
        {"Price,Close\nTicker,AAPL\nDate,\n2014-01-02,1\n", "no column is named volume for AAPL"},
        {"Price,Close,Adj Close,Volume,Volume\nTicker,A,B,A,B\nDate,,,,\n2014-01-02,1,2,3,4\n",
         "no column is named close for B"},
    };
    for (const auto &c : cases) {
        Parsed parsed(c.text);
        EXPECT_FALSE(parsed.ok) << c.message;
        EXPECT_NE(parsed.message.find(c.message), std::string::npos) << parsed.message;
        EXPECT_EQ(parsed.message.find("x/AAPL.csv: "), 0u) << parsed.message;
    }
}

TEST(PriceFile, any_truncation_is_refused_or_read_and_never_crashes) {
    std::string whole = canonical_csv(random_prices(5, 1));
    for (size_t size = 0; size <= whole.size(); ++size) {
        Parsed parsed(whole.substr(0, size));
        EXPECT_TRUE(parsed.ok || !parsed.message.empty()) << size;
        if (parsed.ok) {
            EXPECT_EQ(parsed.file.cut_short, whole[size - 1] != '\n') << size;
        }
    }
}

TEST(PriceFile, any_changed_byte_never_crashes) {
    std::string whole = canonical_csv(random_prices(3, 1));
    for (size_t at = 0; at < whole.size(); ++at)
        for (char c : {'\0', '"', ',', '\n', '9', '-', '\xff', '$'}) {
            std::string changed = whole;
            changed[at] = c;
            Parsed refused(changed), skipped(changed, true);
            EXPECT_TRUE(refused.ok || !refused.message.empty());
        }
}

} // namespace
