// The four features: closed forms, edge cases, and that none of them sees tomorrow.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "price_text.h"

extern "C" {
#include "features/features.h"
}

namespace {

using Rows = std::vector<double>;

Rows compute(const std::vector<double> &p, const std::vector<double> &v) {
    Rows raw((p.size() - FEATURE_WARM_UP) * FEATURE_COUNT, -1e9);
    features_compute(p.data(), v.data(), static_cast<int32_t>(p.size()), raw.data());
    return raw;
}

std::vector<double> volumes(size_t days) {
    std::vector<double> v;
    for (size_t day = 0; day < days; ++day)
        v.push_back(volume_of(static_cast<int>(day)));
    return v;
}

TEST(Features, cut_after_any_day_are_bit_identical) {
    auto p = random_prices(80, 1);
    auto v = volumes(80);
    Rows full = compute(p, v);
    for (size_t days = FEATURE_WARM_UP + 1; days < p.size(); ++days) {
        Rows cut = compute({p.begin(), p.begin() + static_cast<long>(days)},
                           {v.begin(), v.begin() + static_cast<long>(days)});
        ASSERT_EQ(std::memcmp(cut.data(), full.data(), cut.size() * sizeof(double)), 0) << days;
    }
}

TEST(Features, changed_future_changes_nothing_before_it) {
    auto p = random_prices(80, 1);
    auto v = volumes(80);
    Rows full = compute(p, v);
    std::mt19937 random(2);
    std::uniform_real_distribution<double> factor(0.1, 10);
    for (size_t t = FEATURE_WARM_UP; t + 1 < p.size(); ++t) {
        auto p2 = p, v2 = v;
        for (size_t day = t + 1; day < p.size(); ++day) {
            p2[day] *= factor(random);
            v2[day] *= factor(random);
        }
        Rows changed = compute(p2, v2);
        size_t same = (t + 1 - FEATURE_WARM_UP) * FEATURE_COUNT;
        ASSERT_EQ(std::memcmp(changed.data(), full.data(), same * sizeof(double)), 0) << t;
        ASSERT_NE(changed[same], full[same]) << "the day after sees its own price";
    }
}

TEST(Features, standing_still_gives_the_neutral_values) {
    for (double volume : {0.0, 1e6, 0.1}) {
        Rows raw = compute(std::vector<double>(30, 12.34), std::vector<double>(30, volume));
        for (size_t row = 0; row < 10; ++row) {
            EXPECT_EQ(raw[row * 4 + FEATURE_RET5], 0);
            EXPECT_EQ(raw[row * 4 + FEATURE_VOL20], 0);
            EXPECT_EQ(raw[row * 4 + FEATURE_RSI14], 50);
            EXPECT_EQ(raw[row * 4 + FEATURE_VOLZ20], 0) << "volume " << volume;
        }
    }
}

TEST(Features, steady_rise_has_closed_forms) {
    std::vector<double> p, v;
    for (int day = 0; day < 40; ++day) {
        p.push_back(std::pow(2.0, day));
        v.push_back(day);
    }
    Rows raw = compute(p, v);
    for (size_t row = 0; row < 20; ++row) {
        EXPECT_EQ(raw[row * 4 + FEATURE_RET5], 31);
        EXPECT_EQ(raw[row * 4 + FEATURE_VOL20], 0);
        EXPECT_EQ(raw[row * 4 + FEATURE_RSI14], 100);
        /* 0..19 has mean 9.5 and sample variance 35 */
        EXPECT_NEAR(raw[row * 4 + FEATURE_VOLZ20], 9.5 / std::sqrt(35.0), 1e-14);
    }
}

TEST(Features, one_spike_in_volume_reaches_the_bound) {
    std::vector<double> v(40, 1000);
    v[30] = 1e15;
    Rows raw = compute(random_prices(40, 1), v);
    EXPECT_NEAR(raw[10 * 4 + FEATURE_VOLZ20], 19 / std::sqrt(20.0), 1e-12);
}

TEST(Features, whole_volumes_give_the_same_bits) {
    auto p = random_prices(101, 3);
    auto v = volumes(101);
    std::vector<uint32_t> whole(v.begin(), v.end());
    Rows raw = compute(p, v), same(raw.size());
    features_compute_whole(p.data(), whole.data(), 101, same.data());
    EXPECT_EQ(std::memcmp(raw.data(), same.data(), raw.size() * sizeof(double)), 0);
}

TEST(Features, volatility_of_one_day_equals_the_column) {
    auto p = random_prices(101, 3);
    Rows raw = compute(p, volumes(101));
    for (int32_t t = FEATURE_WARM_UP; t < 101; ++t)
        EXPECT_EQ(features_volatility(p.data(), t),
                  raw[static_cast<size_t>(t - FEATURE_WARM_UP) * 4 + FEATURE_VOL20]);
}

} // namespace
