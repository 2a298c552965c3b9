// Folders of price files: what is read, aligned, warned of and refused.
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>

#include <sys/stat.h>
#include <unistd.h>

#include "price_text.h"
#include "temporary_folder.h"

extern "C" {
#include "base/sha256.h"
}

namespace {

class Market {
  public:
    explicit Market(const std::string &path, bool skip = false, bool explain = false) {
        market_options options = {skip, explain};
        error error = {""};
        testing::internal::CaptureStderr();
        ok = market_read(&market, path.c_str(), &options, &error);
        notes = testing::internal::GetCapturedStderr();
        message = error.message;
    }
    ~Market() { market_free(&market); }
    Market(const Market &) = delete;
    Market &operator=(const Market &) = delete;

    bool noted(const std::string &text) const { return notes.find(text) != std::string::npos; }
    bool failed_with(const std::string &text) const {
        return !ok && message.find(text) != std::string::npos;
    }

    struct market market = {};
    bool ok = false;
    std::string message, notes;
};

std::string without_lines(const std::string &text, const std::set<int> &lines) {
    std::string out;
    std::istringstream in(text);
    std::string line;
    for (int number = 1; std::getline(in, line); ++number)
        if (!lines.count(number))
            out += line + "\n";
    return out;
}

TEST(Market, folder_is_read_in_name_order) {
    TemporaryFolder folder;
    auto prices = random_prices(60, 1);
    folder.write("B.csv", canonical_csv(prices));
    folder.write("A.csv", canonical_csv(random_prices(60, 2)));
    folder.write("README.md", "not prices");
    folder.write(".hidden.csv", "not prices");
    Market read(folder.path());
    ASSERT_TRUE(read.ok) << read.message;
    ASSERT_EQ(read.market.count, 2);
    EXPECT_STREQ(read.market.tickers[0].name, "A");
    EXPECT_EQ(read.market.rows, 120);
    EXPECT_EQ(read.market.rows_read, 120);
    EXPECT_EQ(read.notes, "");
    int32_t b = market_find(&read.market, "B");
    ASSERT_EQ(b, 1);
    EXPECT_EQ(market_find(&read.market, "C"), -1);
    for (int day = 0; day < 60; ++day) {
        EXPECT_EQ(read.market.tickers[b].adj_close[day], prices[static_cast<size_t>(day)]);
        EXPECT_EQ(ticker_volume(&read.market.tickers[b], day), volume_of(day));
        EXPECT_EQ(read.market.tickers[b].dates[day], weekday(day));
    }
    EXPECT_EQ(read.market.tickers[0].dates, read.market.tickers[1].dates) << "dates are shared";
}

TEST(Market, volumes_of_every_size_are_kept_exactly) {
    for (double volume : {0.0, 4294967295.0, 4294967296.0, 1234.5, 1e15}) {
        TemporaryFolder folder;
        std::string text = "date,close,volume\n";
        for (int day = 0; day < 60; ++day) {
            char line[100];
            double v = day == 30 ? volume : 1000 + day;
            snprintf(line, sizeof line, "%s,%d,%.1f\n", date_text(weekday(day)).c_str(),
                     100 + day % 7, v);
            text += line;
        }
        folder.write("A.csv", text);
        folder.write("B.csv", canonical_csv(random_prices(60, 2)));
        Market read(folder.path());
        ASSERT_TRUE(read.ok) << read.message;
        EXPECT_EQ(ticker_volume(&read.market.tickers[0], 30), volume);
        EXPECT_EQ(ticker_volume(&read.market.tickers[0], 31), 1031);
        EXPECT_EQ(ticker_volume(&read.market.tickers[1], 59), volume_of(59));
    }
}

TEST(Market, one_file_is_a_market) {
    TemporaryFolder folder;
    Market read(folder.write("A.csv", canonical_csv(random_prices(60, 1))));
    ASSERT_TRUE(read.ok) << read.message;
    EXPECT_EQ(read.market.count, 1);
}

TEST(Market, checksum_is_what_sha256sum_prints) {
    TemporaryFolder folder;
    folder.write("A.csv", canonical_csv(random_prices(60, 1)));
    folder.write("B.csv", canonical_csv(random_prices(60, 2)));
    Market read(folder.path());
    ASSERT_TRUE(read.ok) << read.message;
    std::string command = "cd " + folder.path() + " && LC_ALL=C sha256sum *.csv | sha256sum";
    FILE *pipe = popen(command.c_str(), "r");
    char printed[65] = "";
    ASSERT_EQ(fread(printed, 1, 64, pipe), 64u);
    pclose(pipe);
    EXPECT_STREQ(read.market.sha256, printed);
}

TEST(Sha256, known_digests_for_every_padding) {
    const struct {
        std::string data;
        const char *digest;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {std::string(1000000, 'a'),
         "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
    };
    for (const auto &c : cases) {
        char text[SHA256_TEXT_SIZE];
        sha256_text(text, c.data.data(), c.data.size());
        EXPECT_STREQ(text, c.digest);
        sha256_text_portable(text, c.data.data(), c.data.size());
        EXPECT_STREQ(text, c.digest);
    }
}

TEST(Market, gzip_is_read_and_damage_is_named) {
    TemporaryFolder folder;
    std::string plain = folder.write("A.csv", canonical_csv(random_prices(60, 1)));
    ASSERT_EQ(system(("gzip -k " + plain).c_str()), 0);
    std::filesystem::remove(plain);
    Market read(folder.path());
    ASSERT_TRUE(read.ok) << read.message;
    EXPECT_STREQ(read.market.tickers[0].name, "A");
    EXPECT_EQ(read.market.rows, 60);
    std::string packed = folder.read("A.csv.gz");
    folder.write("A.csv.gz", packed.substr(0, packed.size() / 2));
    EXPECT_TRUE(Market(folder.path()).failed_with("A.csv.gz: the gzip file is cut short"));
    packed[packed.size() / 2] ^= 0x55;
    folder.write("A.csv.gz", packed);
    EXPECT_TRUE(Market(folder.path()).failed_with("A.csv.gz: "));
}

TEST(Market, days_that_most_tickers_lack_are_dropped_and_counted) {
    TemporaryFolder folder;
    folder.write("A.csv", canonical_csv(random_prices(60, 1)));
    folder.write("B.csv", canonical_csv(random_prices(60, 2)));
    std::string saturday = "2014-01-04,1,1,1,100,100,5\n", c = canonical_csv(random_prices(60, 3));
    size_t monday = c.find("2014-01-06");
    folder.write("C.csv", c.substr(0, monday) + saturday + c.substr(monday));
    Market read(folder.path());
    ASSERT_TRUE(read.ok) << read.message;
    EXPECT_EQ(read.market.rows_dropped, 1);
    EXPECT_EQ(read.market.rows_read, 181);
    EXPECT_EQ(read.market.rows, 180);
    EXPECT_TRUE(read.noted("C: 1 rows dropped"));
    EXPECT_EQ(read.market.tickers[2].dates[2], weekday(2));
    EXPECT_EQ(read.market.tickers[2].adj_close[2], random_prices(60, 3)[2]);
    EXPECT_EQ(ticker_volume(&read.market.tickers[2], 2), volume_of(2));
}

TEST(Market, days_that_one_ticker_lacks_are_kept_for_the_others_and_counted) {
    TemporaryFolder folder;
    folder.write("A.csv", canonical_csv(random_prices(60, 1)));
    folder.write("B.csv", canonical_csv(random_prices(60, 2)));
    folder.write("C.csv", without_lines(canonical_csv(random_prices(60, 3)), {12, 13}));
    folder.write("D.csv", canonical_csv(random_prices(45, 4), 15)); // starts later: nothing missing
    Market read(folder.path());
    ASSERT_TRUE(read.ok) << read.message;
    EXPECT_EQ(read.market.rows_dropped, 0);
    EXPECT_EQ(read.market.days_missing, 2);
    EXPECT_EQ(read.market.rows, 60 + 60 + 58 + 45);
    EXPECT_TRUE(read.noted("C: no prices on")) << read.notes;
    EXPECT_EQ(read.market.warnings, 1);
}

TEST(Market, long_gap_of_a_single_ticker_is_warned_of) {
    TemporaryFolder folder;
    std::set<int> gone;
    for (int line = 30; line < 40; ++line)
        gone.insert(line);
    folder.write("A.csv", without_lines(canonical_csv(random_prices(90, 1)), gone));
    Market read(folder.path());
    ASSERT_TRUE(read.ok) << read.message;
    EXPECT_TRUE(read.noted("A: no prices on 14 days")) << read.notes;
}

TEST(Market, unadjusted_split_is_warned_of) {
    auto prices = random_prices(60, 1);
    for (size_t day = 0; day < 30; ++day)
        prices[day] *= 4;
    TemporaryFolder folder;
    std::string text = canonical_csv(prices);
    Market quiet(folder.write("A.csv", text));
    ASSERT_TRUE(quiet.ok);
    EXPECT_FALSE(quiet.noted("split")) << "no jump in volume, no split";
    size_t line = text.find(date_text(weekday(30)));
    size_t comma = text.rfind(',', text.find('\n', line));
    text.replace(comma + 1, text.find('\n', line) - comma - 1, "9000");
    Market read(folder.write("A.csv", text));
    ASSERT_TRUE(read.ok);
    EXPECT_TRUE(read.noted("(an unadjusted split?)")) << read.notes;
    EXPECT_TRUE(read.noted(date_text(weekday(30))));
}

TEST(Market, price_of_another_size_is_warned_of_without_a_jump_in_volume) {
    auto prices = random_prices(60, 1);
    prices[30] *= 10; // a point out of place
    TemporaryFolder folder;
    Market read(folder.write("A.csv", canonical_csv(prices)));
    ASSERT_TRUE(read.ok);
    EXPECT_EQ(read.market.warnings, 2) << read.notes; // there and back
    EXPECT_TRUE(read.noted("(a mistake, or an unadjusted split?)")) << read.notes;
}

TEST(Market, weekly_prices_are_warned_of_once) {
    TemporaryFolder folder;
    std::string text = "date,close,volume\n";
    for (int week = 0; week < 60; ++week)
        text += date_text(weekday(5 * week)) + "," + std::to_string(100 + week % 7) + ",1000\n";
    Market read(folder.write("A.csv", text));
    ASSERT_TRUE(read.ok) << read.message;
    EXPECT_EQ(read.market.warnings, 1) << read.notes;
    EXPECT_TRUE(read.noted("(weekly or monthly ones?)")) << read.notes;
}

TEST(Market, days_to_come_are_warned_of) {
    TemporaryFolder folder;
    Market read(folder.write("A.csv", canonical_csv(random_prices(60, 1), 40000)));
    ASSERT_TRUE(read.ok) << read.message;
    EXPECT_EQ(read.market.warnings, 1);
    EXPECT_TRUE(read.noted("1 tickers have prices of days to come, until 2167-")) << read.notes;
}

TEST(Market, missing_adjustment_is_said) {
    TemporaryFolder folder;
    std::string text = "date,close,volume\n";
    for (int day = 0; day < 60; ++day)
        text += date_text(weekday(day)) + "," + std::to_string(100 + day % 7) + ",1000\n";
    folder.write("A.csv", text);
    Market read(folder.path(), false, true);
    ASSERT_TRUE(read.ok) << read.message;
    EXPECT_TRUE(read.noted("1 of 1 price files have no adjusted close"));
    EXPECT_TRUE(read.noted("A.csv: comma-separated, columns close volume, dates YYYY-MM-DD, oldest "
                           "first, no adjusted close: close is taken as adjusted already; ticker A "
                           "(from the file's name), 60 rows"))
        << read.notes;
}

TEST(Market, mistakes_name_the_file) {
    TemporaryFolder folder;
    EXPECT_TRUE(Market(folder.path("nowhere")).failed_with("nowhere: can't be opened: No such"));
    EXPECT_TRUE(Market(folder.path()).failed_with("no price files"));
    std::string good = canonical_csv(random_prices(60, 1));
    folder.write("B.csv", good);
    folder.write("A.csv", without_lines(good, {5}) + "x\n");
    folder.write("C.csv", "");
    for (int i = 0; i < 20; ++i) // whichever thread is first, the first file's message is given
        EXPECT_TRUE(Market(folder.path()).failed_with("A.csv: line 61"));
    folder.write("A.csv", good.substr(0, good.find('\n', 500) + 1));
    folder.write("C.csv", good);
    EXPECT_TRUE(Market(folder.path()).failed_with("A.csv: ticker A has "));
    Market skipped(folder.path(), true);
    EXPECT_TRUE(skipped.ok) << skipped.message;
    EXPECT_EQ(skipped.market.tickers_dropped, 1);
    EXPECT_EQ(skipped.market.count, 2);
}

TEST(Market, ticker_in_two_files_is_refused) {
    TemporaryFolder folder;
    folder.write("A.csv", canonical_csv(random_prices(60, 1)));
    folder.write("A.txt", canonical_csv(random_prices(60, 1)));
    EXPECT_TRUE(Market(folder.path()).failed_with("ticker A is in "));
}

TEST(Market, folders_and_pipes_in_place_of_files_are_refused) {
    TemporaryFolder folder;
    folder.write("B.csv", canonical_csv(random_prices(60, 1)));
    std::filesystem::create_directory(folder.path("A.csv"));
    EXPECT_TRUE(Market(folder.path()).failed_with("A.csv: not a regular file"));
    std::filesystem::remove(folder.path("A.csv"));
    ASSERT_EQ(mkfifo(folder.path("A.csv").c_str(), 0600), 0);
    EXPECT_TRUE(Market(folder.path()).failed_with("A.csv: not a regular file"));
}

TEST(Market, unreadable_file_is_named) {
    if (geteuid() == 0)
        GTEST_SKIP() << "root can read every file";
    TemporaryFolder folder;
    std::string path = folder.write("A.csv", canonical_csv(random_prices(60, 1)));
    std::filesystem::permissions(path, std::filesystem::perms::none);
    EXPECT_TRUE(Market(folder.path()).failed_with("A.csv: can't be opened: Permission denied"));
}

TEST(Market, real_prices_are_read_without_a_word) {
    std::string why, path = real_market(&why);
    if (path.empty())
        GTEST_SKIP() << why;
    Market read(path);
    ASSERT_TRUE(read.ok) << read.message;
    EXPECT_EQ(read.market.count, 50);
    EXPECT_EQ(read.market.rows, 50 * 2516);
    EXPECT_EQ(read.notes, "");
    EXPECT_EQ(read.market.rows_dropped + read.market.days_missing, 0);
}

} // namespace
