/* The reader of price files. The input's first byte says whether bad rows are left out and whether
 * the rest is the file's text or its gzip packing. What is accepted is in order, positive and
 * finite. */
#include <math.h>
#include <string.h>

#include "fuzz.h"
#include "market/gzip.h"
#include "market/price_file.h"

static void check(const price_file *file) {
    int64_t days = 0;
    for (int32_t s = 0; s < file->count; s++) {
        const price_series *series = &file->series[s];
        CLAIM(strlen(series->name) > 0);
        days += series->days;
        for (int32_t day = 0; day < series->days; day++) {
            CLAIM(day == 0 || series->dates[day] > series->dates[day - 1]);
            CLAIM(isfinite(series->adj_close[day]) && series->adj_close[day] > 0);
            CLAIM(isfinite(series->volume[day]) && series->volume[day] >= 0);
        }
    }
    CLAIM(days > 0);
}

static void parse(const char *data, size_t size, bool skip_bad_rows) {
    const market_options options = {.skip_bad_rows = skip_bad_rows};
    price_file file;
    error error = {""};
    if (price_file_parse(&file, "prices/AAPL.csv", data, size, &options, &error)) {
        check(&file);
        price_file_free(&file);
    } else {
        CLAIM(strncmp(error.message, "prices/AAPL.csv: ", 17) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    const char *text = (const char *)data + 1;
    const bool skip_bad_rows = data[0] & 1;
    size--;
    if (!gzip_is(text, size)) {
        parse(text, size, skip_bad_rows);
        return 0;
    }
    char *unpacked;
    size_t unpacked_size;
    error error = {""};
    if (gzip_unpack(&unpacked, &unpacked_size, "AAPL.csv.gz", text, size, &error)) {
        parse(unpacked, unpacked_size, skip_bad_rows);
        free(unpacked);
    } else {
        CLAIM(error.message[0]);
    }
    return 0;
}
