// The synthetic market: what it promises about itself.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

extern "C" {
#include "base/date.h"
#include "market/synthetic.h"
}

namespace {

class Synthetic {
  public:
    Synthetic(int32_t tickers, int32_t days, uint64_t seed, double signal) {
        error error = {""};
        synthetic_options options = {tickers, days, seed, signal};
        EXPECT_TRUE(synthetic_create(&market_, &options, &error)) << error.message;
        for (int32_t k = 0; k < tickers; ++k) {
            bars.emplace_back(days);
            mean.emplace_back(days);
            EXPECT_TRUE(
                synthetic_ticker(bars.back().data(), mean.back().data(), &market_, k, &error));
        }
    }
    ~Synthetic() { synthetic_free(&market_); }
    Synthetic(const Synthetic &) = delete;
    Synthetic &operator=(const Synthetic &) = delete;

    double value(size_t k, size_t day) const {
        return bars[k][day].adj_close / bars[k][day - 1].adj_close - 1;
    }

    std::vector<std::vector<synthetic_bar>> bars;
    std::vector<std::vector<double>> mean;

  private:
    synthetic_market market_ = {};
};

// R2 of the known conditional mean against the zero forecast, over all returns.
double best_r2(const Synthetic &s) {
    double errors = 0, total = 0;
    for (size_t k = 0; k < s.bars.size(); ++k)
        for (size_t day = 1; day < s.bars[k].size(); ++day) {
            double r = s.value(k, day);
            errors += (r - s.mean[k][day]) * (r - s.mean[k][day]);
            total += r * r;
        }
    return 1 - errors / total;
}

TEST(Synthetic, signal_is_the_r2_of_the_best_forecast) {
    // The sampling error grows with the root of the signal; 0.03 is three times what was seen.
    for (double signal : {0.01, 0.05, 0.2})
        EXPECT_NEAR(best_r2(Synthetic(50, 2516, 1, signal)), signal, 0.03 * std::sqrt(signal));
}

TEST(Synthetic, no_signal_has_no_conditional_mean) {
    Synthetic s(3, 300, 1, 0);
    for (const auto &means : s.mean)
        for (double mean : means)
            EXPECT_EQ(mean, 0);
}

TEST(Synthetic, same_seed_gives_the_same_market_and_another_seed_another) {
    Synthetic a(2, 100, 7, 0.05), b(3, 100, 7, 0.05), c(2, 100, 8, 0.05);
    for (size_t k = 0; k < 2; ++k)
        EXPECT_EQ(std::memcmp(a.bars[k].data(), b.bars[k].data(), 100 * sizeof(synthetic_bar)), 0)
            << "a ticker doesn't depend on how many there are";
    EXPECT_NE(a.bars[0][50].close, c.bars[0][50].close);
    EXPECT_NE(a.bars[0][50].volume, a.bars[1][50].volume);
}

TEST(Synthetic, bars_are_what_a_price_file_may_hold) {
    Synthetic s(5, 2000, 3, 0);
    for (const auto &bars : s.bars)
        for (size_t day = 0; day < bars.size(); ++day) {
            const synthetic_bar &bar = bars[day];
            EXPECT_LE(bar.low, std::min(bar.open, bar.close));
            EXPECT_GE(bar.high, std::max(bar.open, bar.close));
            EXPECT_GT(bar.low, 0);
            EXPECT_GT(bar.volume, 0);
            EXPECT_LE(bar.adj_close, bar.close * (1 + 1e-12));
            if (day > 0) {
                EXPECT_GT(bar.date, bars[day - 1].date);
            }
        }
    char first[DATE_SIZE];
    date_format(first, s.bars[0][0].date);
    EXPECT_STREQ(first, "2014-01-02");
    EXPECT_EQ(s.bars[0].back().adj_close, s.bars[0].back().close);
}

TEST(Synthetic, returns_look_like_returns) {
    Synthetic s(20, 2516, 1, 0);
    double kurtosis = 0, clustering = 0, volume_follows = 0, together = 0;
    for (size_t k = 0; k < 20; ++k) {
        double m2 = 0, m4 = 0, size = 0, next = 0, squares = 0, v = 0, vv = 0, av = 0, ab = 0,
               bb = 0;
        size_t n = s.bars[k].size() - 2;
        for (size_t day = 1; day <= n; ++day) {
            double r = s.value(k, day), a = std::fabs(r), b = s.value((k + 1) % 20, day);
            double volume = std::log(s.bars[k][day].volume);
            m2 += r * r, m4 += r * r * r * r, size += a, squares += a * a;
            next += a * std::fabs(s.value(k, day + 1));
            v += volume, vv += volume * volume, av += a * volume;
            ab += r * b, bb += b * b;
        }
        double count = static_cast<double>(n), mean = size / count;
        kurtosis += count * m4 / (m2 * m2) / 20;
        double variance = squares / count - mean * mean;
        clustering += (next / count - mean * mean) / variance / 20;
        volume_follows += (av / count - mean * v / count) /
                          std::sqrt(variance * (vv / count - v / count * v / count)) / 20;
        together += ab / std::sqrt(m2 * bb) / 20;
    }
    EXPECT_GT(kurtosis, 5);         // 3 for a normal distribution
    EXPECT_GT(clustering, 0.05);    // autocorrelation of |r|; 0 without clustering
    EXPECT_GT(volume_follows, 0.2); // correlation of |r| and log volume
    EXPECT_GT(together, 0.1);       // correlation between tickers
    EXPECT_LT(together, 0.5);
}

} // namespace
