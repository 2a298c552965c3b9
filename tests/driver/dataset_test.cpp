// Windows, the chronological split and the scaler, against definitions written out as loops.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "price_text.h"

extern "C" {
#include "dataset/dataset.h"
}

namespace {

// A market in memory: ticker k has the days that `days(k, index)` keeps.
class Prices {
  public:
    template <class Keep> Prices(int tickers, int days, Keep keep) {
        columns_.resize(static_cast<size_t>(tickers));
        tickers_.resize(static_cast<size_t>(tickers));
        for (int k = 0; k < tickers; ++k) {
            Columns &c = columns_[static_cast<size_t>(k)];
            auto prices = random_prices(days, static_cast<unsigned>(k + 1));
            for (int day = 0; day < days; ++day)
                if (keep(k, day)) {
                    c.dates.push_back(weekday(day));
                    c.adj_close.push_back(prices[static_cast<size_t>(day)]);
                    c.volume.push_back(volume_of(day + k));
                }
            ticker &t = tickers_[static_cast<size_t>(k)];
            snprintf(t.name, sizeof t.name, "T%03d", k);
            t.days = static_cast<int32_t>(c.dates.size());
            t.dates = c.dates.data();
            t.adj_close = c.adj_close.data();
            t.volume = c.volume.data();
        }
        market.tickers = tickers_.data();
        market.count = tickers;
    }
    Prices(int tickers, int days) : Prices(tickers, days, [](int, int) { return true; }) {}

    struct Columns {
        std::vector<int32_t> dates;
        std::vector<double> adj_close, volume;
    };
    Columns &columns(int k) { return columns_[static_cast<size_t>(k)]; }
    struct market market = {};

  private:
    std::vector<Columns> columns_;
    std::vector<ticker> tickers_;
};

class Built {
  public:
    explicit Built(const market &source, const dataset_options &options = defaults(),
                   const scaler *fixed = nullptr) {
        error error = {""};
        ok = dataset_build(&dataset, &source, &options, fixed, &error);
        message = error.message;
    }
    ~Built() { dataset_free(&dataset); }
    Built(const Built &) = delete;
    Built &operator=(const Built &) = delete;

    static dataset_options defaults() {
        dataset_options options;
        dataset_options_init(&options);
        return options;
    }
    // (ticker, date) of each window of a block.
    using Ends = std::vector<std::tuple<int32_t, int32_t>>;
    Ends ends(int64_t first, int64_t count) const {
        Ends out;
        for (int64_t w = first; w < first + count; ++w)
            out.emplace_back(dataset_ticker(&dataset, dataset.windows[w]),
                             dataset_date(&dataset, dataset.windows[w]));
        return out;
    }
    Ends train() const { return ends(0, dataset.train_windows); }
    Ends validation() const { return ends(dataset.train_windows, dataset.validation_windows); }
    Ends test() const {
        return ends(dataset.train_windows + dataset.validation_windows, dataset.test_windows);
    }

    struct dataset dataset = {};
    bool ok = false;
    std::string message;
};

bool ragged(int k, int day) {
    if (k % 3 == 1 && day < 70)
        return false; // comes late
    if (k % 3 == 2 && day > 140)
        return false; // ends early
    if (k == 6 && day > 120 && day < 190)
        return false; // pauses, across the cut
    return (day * 31 + k * 17) % 23 != 0 || k == 0;
}

TEST(Dataset, windows_equal_the_brute_force_loop) {
    Prices prices(7, 200, ragged);
    Built built(prices.market);
    ASSERT_TRUE(built.ok) << built.message;
    const dataset &d = built.dataset;
    Built::Ends expected;
    int64_t row = 0, labelled = 0;
    for (int32_t k = 0; k < 7; ++k) {
        const ticker &t = prices.market.tickers[k];
        std::vector<double> raw(static_cast<size_t>(t.days) * 4);
        dataset_raw(&d, k, raw.data());
        for (int32_t day = 20; day < t.days; ++day, ++row) {
            ASSERT_EQ(dataset_ticker(&d, row), k);
            ASSERT_EQ(dataset_day(&d, row), day);
            ASSERT_EQ(dataset_find_row(&d, k, t.dates[day]), row);
            for (int f = 0; f < 4; ++f) {
                double z = (raw[static_cast<size_t>((day - 20) * 4 + f)] - d.scaler.mean[f]) /
                           d.scaler.sd[f];
                z = std::min(5.0, std::max(-5.0, z));
                ASSERT_EQ(d.features[row * 4 + f], static_cast<float>(z));
            }
            if (day + 1 == t.days) {
                EXPECT_TRUE(std::isnan(d.targets[row]));
                EXPECT_TRUE(std::isnan(dataset_return(&d, row)));
                EXPECT_TRUE(std::isnan(dataset_tradeable(&d, row)));
                continue;
            }
            ++labelled;
            double label = t.adj_close[day + 1] / t.adj_close[day] - 1;
            EXPECT_EQ(dataset_return(&d, row), label);
            EXPECT_EQ(d.targets[row], static_cast<float>(label));
            EXPECT_EQ(std::isnan(dataset_tradeable(&d, row)), day + 2 == t.days);
            EXPECT_EQ(dataset_volatility(&d, row), raw[static_cast<size_t>((day - 20) * 4 + 1)]);
            if (day - 20 >= 19)
                expected.emplace_back(k, t.dates[day]);
        }
    }
    EXPECT_EQ(d.rows, row);
    EXPECT_EQ(d.labelled_rows, labelled);
    Built::Ends all = built.train(), test = built.test();
    all.insert(all.end(), test.begin(), test.end());
    EXPECT_EQ(d.purged_windows + static_cast<int64_t>(all.size()),
              static_cast<int64_t>(expected.size()));
    std::sort(all.begin(), all.end());
    EXPECT_TRUE(std::includes(expected.begin(), expected.end(), all.begin(), all.end()));
    EXPECT_EQ(std::set(all.begin(), all.end()).size(), all.size()) << "no window twice";
}

TEST(Dataset, one_date_cuts_all_tickers_and_no_label_crosses_it) {
    Prices prices(7, 200, ragged);
    Built built(prices.market);
    ASSERT_TRUE(built.ok) << built.message;
    const dataset &d = built.dataset;
    int32_t first_test_label = INT32_MAX, last_train_label = 0;
    for (int64_t w = 0; w < d.train_windows + d.test_windows; ++w) {
        int32_t k = dataset_ticker(&d, d.windows[w]), day = dataset_day(&d, d.windows[w]);
        int32_t date = prices.market.tickers[k].dates[day];
        int32_t label = prices.market.tickers[k].dates[day + 1];
        if (w < d.train_windows) {
            EXPECT_LT(date, d.test_first_date);
            last_train_label = std::max(last_train_label, label);
        } else {
            EXPECT_GE(date, d.test_first_date);
            first_test_label = std::min(first_test_label, label);
        }
    }
    EXPECT_LT(last_train_label, first_test_label);
    EXPECT_GT(d.purged_windows, 0) << "some ticker's next day lies across the cut";
    EXPECT_LT(d.train_last_date, d.test_first_date);
}

TEST(Dataset, equal_calendars_split_at_whole_days_without_purge) {
    Prices prices(5, 141); // 101 windows a ticker
    Built built(prices.market);
    ASSERT_TRUE(built.ok) << built.message;
    EXPECT_EQ(built.dataset.train_windows, 5 * 80);
    EXPECT_EQ(built.dataset.test_windows, 5 * 21);
    EXPECT_EQ(built.dataset.purged_windows, 0);
    EXPECT_EQ(built.dataset.test_first_date, weekday(39 + 80));
    EXPECT_EQ(built.dataset.train_last_date, weekday(39 + 79));
}

TEST(Dataset, validation_is_the_last_part_of_training) {
    Prices prices(5, 140);
    dataset_options options = Built::defaults();
    options.validation_fraction = 0.1;
    Built built(prices.market, options);
    ASSERT_TRUE(built.ok) << built.message;
    EXPECT_EQ(built.dataset.train_windows, 5 * 72);
    EXPECT_EQ(built.dataset.validation_windows, 5 * 8);
    EXPECT_EQ(built.dataset.test_windows, 5 * 20);
    for (auto [k, date] : built.validation()) {
        EXPECT_GE(date, weekday(39 + 72));
        EXPECT_LT(date, weekday(39 + 80));
    }
}

TEST(Dataset, embargo_leaves_out_days_before_each_cut) {
    Prices prices(5, 140);
    dataset_options options = Built::defaults();
    options.embargo_days = 20;
    Built built(prices.market, options);
    ASSERT_TRUE(built.ok) << built.message;
    EXPECT_EQ(built.dataset.train_windows, 5 * 60);
    EXPECT_EQ(built.dataset.purged_windows, 5 * 20);
    EXPECT_EQ(built.dataset.train_last_date, weekday(39 + 59));
}

TEST(Dataset, scaler_is_of_the_rows_that_training_windows_cover) {
    Prices prices(3, 141);
    Built built(prices.market);
    ASSERT_TRUE(built.ok) << built.message;
    for (int f = 0; f < 4; ++f) {
        long double sum = 0, squares = 0;
        int64_t n = 0;
        std::vector<double> values;
        for (int32_t k = 0; k < 3; ++k) {
            std::vector<double> raw(121 * 4);
            dataset_raw(&built.dataset, k, raw.data());
            for (size_t row = 0; row < 99; ++row) // 19 before the first window end, 80 ends
                values.push_back(raw[row * 4 + static_cast<size_t>(f)]);
        }
        n = static_cast<int64_t>(values.size());
        for (double x : values)
            sum += x;
        for (double x : values)
            squares += (x - sum / n) * (x - sum / n);
        double sd = static_cast<double>(std::sqrt(squares / (n - 1)));
        EXPECT_NEAR(built.dataset.scaler.mean[f], static_cast<double>(sum / n), sd * 1e-14);
        EXPECT_NEAR(built.dataset.scaler.sd[f] / sd, 1, 1e-13);
    }
    EXPECT_EQ(built.dataset.scaler.clip, 5);
}

TEST(Dataset, changed_test_prices_leave_scaler_and_training_rows_unchanged) {
    Prices prices(3, 141);
    Built before(prices.market);
    scaler scaler = before.dataset.scaler;
    std::vector<float> features(before.dataset.features, before.dataset.features + 99 * 4);
    for (int k = 0; k < 3; ++k)
        for (size_t day = 39 + 80; day < 141; ++day) {
            prices.columns(k).adj_close[day] *= 1 + 0.3 * std::sin(static_cast<double>(day));
            prices.columns(k).volume[day] *= 3;
        }
    Built after(prices.market);
    ASSERT_TRUE(after.ok);
    EXPECT_EQ(std::memcmp(&after.dataset.scaler, &scaler, sizeof scaler), 0);
    EXPECT_EQ(std::memcmp(after.dataset.features, features.data(), features.size() * 4), 0);
    EXPECT_NE(after.dataset.features[99 * 4], before.dataset.features[99 * 4]);
}

TEST(Dataset, fixed_scaler_is_used_as_it_is) {
    Prices prices(2, 141);
    scaler fixed = {{0, 0, 0, 0}, {1, 1, 100, 1}, 0.5};
    Built built(prices.market, Built::defaults(), &fixed);
    ASSERT_TRUE(built.ok);
    EXPECT_EQ(std::memcmp(&built.dataset.scaler, &fixed, sizeof fixed), 0);
    for (int64_t i = 0; i < built.dataset.rows * 4; ++i)
        EXPECT_LE(std::fabs(built.dataset.features[i]), 0.5f);
}

TEST(Dataset, what_can_not_be_built_is_refused) {
    Prices enough(1, 41), too_few(1, 40), some(2, 100);
    EXPECT_FALSE(Built(too_few.market).ok);
    dataset_options options = Built::defaults();
    options.train_fraction = 1;
    Built all(enough.market, options);
    EXPECT_TRUE(all.ok) << all.message;
    EXPECT_EQ(all.dataset.train_windows, 1);
    options.train_fraction = 0;
    Built none(some.market, options);
    EXPECT_NE(none.message.find("no training windows"), std::string::npos) << none.message;
    options.train_fraction = 1.5;
    EXPECT_FALSE(Built(some.market, options).ok);
    options = Built::defaults();
    options.time_steps = 65;
    EXPECT_FALSE(Built(some.market, options).ok);
    options = Built::defaults();
    options.validation_fraction = 1;
    EXPECT_FALSE(Built(some.market, options).ok);
}

TEST(Dataset, real_prices_have_the_published_counts) {
    std::string why, path = real_market(&why);
    if (path.empty())
        GTEST_SKIP() << why;
    market market = {};
    market_options options = {};
    error error = {""};
    ASSERT_TRUE(market_read(&market, path.c_str(), &options, &error)) << error.message;
    Built built(market);
    ASSERT_TRUE(built.ok) << built.message;
    EXPECT_EQ(built.dataset.labelled_rows, 124750);
    EXPECT_EQ(built.dataset.train_windows, 99000);
    EXPECT_EQ(built.dataset.train_windows + built.dataset.test_windows, 123800);
    for (int32_t k = 0; k < 50; ++k)
        EXPECT_EQ(built.dataset.first_row[k + 1] - built.dataset.first_row[k] - 1, 2495);
    testing::internal::CaptureStdout();
    dataset_print_counts(&built.dataset, stdout);
    EXPECT_EQ(testing::internal::GetCapturedStdout(),
              "50 tickers, 2,495 labelled rows each, 124,750 labelled rows in all; 123,800 "
              "windows: 99,000 train, 24,800 test\n");
    market_free(&market);
}

} // namespace
