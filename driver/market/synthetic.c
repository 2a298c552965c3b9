#include "market/synthetic.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/date.h"

enum { SIGNAL_DAYS = 20, DIVIDEND_DAYS = 63, FIRST_YEAR = 2014 };
static const double persistence = 0.97, common_spread = 0.35, own_spread = 0.25;
static const double factor_size = 0.008, own_size = 0.014, drift = 0.0003, dividend = 0.004;
static const double largest_move = 0.4; /* prices stay positive */
static const double pi = 3.14159265358979323846;

/* SplitMix64 (Steele, Lea and Flood 2014); each ticker has its own stream. */
typedef struct stream {
    uint64_t state;
} stream;

static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static stream stream_of(uint64_t seed, uint64_t number) {
    return (stream){mix(mix(seed + 0x9e3779b97f4a7c15u) ^ number * 0xd1342543de82ef95u)};
}

/* In (0, 1). */
static double uniform(stream *stream) {
    stream->state += 0x9e3779b97f4a7c15u;
    return ((double)(mix(stream->state) >> 11) + 0.5) * 0x1p-53;
}

static double normal(stream *stream) {
    double radius = sqrt(-2 * log(uniform(stream)));
    return radius * cos(2 * pi * uniform(stream));
}

/* Bailey 1994, divided by its standard deviation sqrt(5/3). */
static double student(stream *stream) {
    double radius = sqrt(5 * (pow(uniform(stream), -2.0 / 5) - 1));
    return radius * cos(2 * pi * uniform(stream)) * sqrt(3.0 / 5);
}

/* The next value of a first-order autoregression with stationary deviation `spread`. */
static double autoregress(stream *stream, double last, double spread) {
    return persistence * last + spread * sqrt(1 - persistence * persistence) * normal(stream);
}

static double clamp_move(double move) {
    return fmax(-largest_move, fmin(largest_move, move));
}

bool synthetic_create(synthetic_market *out, const synthetic_options *options, error *error) {
    *out = (synthetic_market){.options = *options};
    size_t days = (size_t)options->days;
    out->dates = calloc(days, sizeof *out->dates);
    out->volatility = calloc(days, sizeof *out->volatility);
    out->factor = calloc(days, sizeof *out->factor);
    if (!out->dates || !out->volatility || !out->factor) {
        synthetic_free(out);
        return error_set(error, "no memory for a market of %" PRId32 " days", options->days);
    }
    stream stream = stream_of(options->seed, 0);
    int32_t date;
    date_from_civil(&date, FIRST_YEAR, 1, 2);
    double h = common_spread * normal(&stream);
    for (size_t day = 0; day < days; ++day) {
        while ((date + 3) % 7 >= 5) /* 1970-01-01 was a Thursday */
            ++date;
        out->dates[day] = date++;
        out->volatility[day] = h;
        out->factor[day] = clamp_move(factor_size * exp(h) * student(&stream));
        h = autoregress(&stream, h, common_spread);
    }
    return true;
}

void synthetic_free(synthetic_market *market) {
    free(market->dates);
    free(market->volatility);
    free(market->factor);
    *market = (synthetic_market){.dates = NULL};
}

void synthetic_name(char name[TICKER_NAME_SIZE], int32_t index) {
    snprintf(name, TICKER_NAME_SIZE, "SYN%04" PRId32, index + 1);
}

/* Noise r - drift - mu of each day, and the day's volume. */
static void draw_days(synthetic_bar *bars, double *noise, const synthetic_market *market,
                      stream *stream) {
    double beta = 0.6 + 0.8 * uniform(stream), level = 13 + 3 * uniform(stream);
    double g = own_spread * normal(stream);
    for (int32_t day = 0; day < market->options.days; ++day) {
        double h = market->volatility[day], shock = student(stream);
        noise[day] = clamp_move(beta * market->factor[day] + own_size * exp(h / 2 + g) * shock);
        bars[day].date = market->dates[day];
        bars[day].volume =
            round(exp(level + 0.8 * (h + g) + 0.25 * fmin(fabs(shock), 6) + 0.3 * normal(stream)));
        g = autoregress(stream, g, own_spread);
    }
}

/* The volume z-score of the days up to `day`. */
static double volume_score(const synthetic_bar *bars, int32_t day) {
    double mean = 0, squares = 0;
    for (int32_t i = day - SIGNAL_DAYS + 1; i <= day; ++i)
        mean += bars[i].volume / SIGNAL_DAYS;
    for (int32_t i = day - SIGNAL_DAYS + 1; i <= day; ++i)
        squares += (bars[i].volume - mean) * (bars[i].volume - mean);
    return squares > 0 ? (bars[day].volume - mean) / sqrt(squares / (SIGNAL_DAYS - 1)) : 0;
}

/* mean[t+1] = m z[t]; see the header for m. */
static void plant_signal(double *mean, const synthetic_bar *bars, const double *noise, int32_t days,
                         double signal) {
    double scores = 0, noises = 0;
    for (int32_t day = 0; day < days; ++day) {
        mean[day] = signal > 0 && day >= SIGNAL_DAYS ? volume_score(bars, day - 1) : 0;
        scores += mean[day] * mean[day];
        noises += noise[day] * noise[day];
    }
    double m = scores > 0 ? sqrt(signal / (1 - signal) * noises / scores) : 0;
    for (int32_t day = 0; day < days; ++day)
        mean[day] *= m;
}

/* Prices from returns; open, high and low around the closes. */
static void price_days(synthetic_bar *bars, const double *mean, const double *noise, int32_t days,
                       stream *stream) {
    double price = exp(log(20) + log(10) * uniform(stream)); /* 20..200 */
    int32_t payments = (days - 1) / DIVIDEND_DAYS, paid = 0;
    double last_close = 0;
    for (int32_t day = 0; day < days; ++day) {
        price *= 1 + clamp_move(drift + mean[day] + noise[day]);
        paid += day > 0 && day % DIVIDEND_DAYS == 0;
        synthetic_bar *bar = &bars[day];
        bar->adj_close = price;
        bar->close = price / pow(1 - dividend, payments - paid);
        bar->open = day ? last_close * (1 + 0.003 * normal(stream)) : bar->close;
        double wide = 1 + 0.005 * fabs(normal(stream));
        bar->high = fmax(bar->open, bar->close) * wide;
        bar->low = fmin(bar->open, bar->close) / wide;
        last_close = bar->close;
    }
}

bool synthetic_ticker(synthetic_bar *bars, double *mean, const synthetic_market *market,
                      int32_t index, error *error) {
    int32_t days = market->options.days;
    double *noise = malloc((size_t)days * sizeof *noise);
    if (!noise)
        return error_set(error, "no memory for a ticker of %" PRId32 " days", days);
    stream stream = stream_of(market->options.seed, (uint64_t)index + 1);
    draw_days(bars, noise, market, &stream);
    plant_signal(mean, bars, noise, days, market->options.signal);
    price_days(bars, mean, noise, days, &stream);
    free(noise);
    return true;
}
