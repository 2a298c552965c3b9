// Price files and markets for tests, in memory and on disk.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

extern "C" {
#include "base/date.h"
#include "market/market.h"
}

inline std::string date_text(int32_t date) {
    char text[DATE_SIZE];
    date_format(text, date);
    return text;
}

// The `index`th weekday from Thursday 2014-01-02 on.
inline int32_t weekday(int index) {
    const int32_t thursday = 16072;
    int from_monday = index + 3;
    return thursday - 3 + from_monday / 5 * 7 + from_monday % 5;
}

// A random walk that never stands still.
inline std::vector<double> random_prices(int days, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<double> move(0, 0.02);
    std::vector<double> prices;
    double price = 100;
    for (int day = 0; day < days; ++day) {
        price *= 1 + move(random);
        prices.push_back(std::round(price * 1e6) / 1e6);
    }
    return prices;
}

inline double volume_of(int day) {
    return 1000 + (day * 7919) % 997;
}

// The canonical format; line `day` + 2 of the file is day `day`.
inline std::string canonical_csv(const std::vector<double> &prices, int first_day = 0) {
    std::string text = "date,open,high,low,close,adj_close,volume\n";
    for (size_t i = 0; i < prices.size(); ++i) {
        char line[200];
        int day = first_day + static_cast<int>(i);
        double p = prices[i];
        snprintf(line, sizeof line, "%s,%.6f,%.6f,%.6f,%.6f,%.6f,%.0f\n",
                 date_text(weekday(day)).c_str(), p, p * 1.01, p * 0.99, p, p, volume_of(day));
        text += line;
    }
    return text;
}

// The folder of real prices, or "" with the reason in `why`.
inline std::string real_market(std::string *why) {
    const char *named = std::getenv("RP_MARKET");
    std::string path = named ? named : RP_SOURCE_DIR "/../shared/market/sp500-50";
    if (std::filesystem::is_directory(path))
        return path;
    *why = "no real prices at " + path + " (set RP_MARKET)";
    return "";
}
