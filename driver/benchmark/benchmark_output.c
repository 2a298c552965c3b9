/* The speed table as JSON and on the terminal. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "benchmark/benchmark.h"

/* Median time of the cpu row, the base of the speed-ups; NaN when it did not run. */
static double cpu_seconds(const benchmark *benchmark) {
    for (int32_t i = 0; i < benchmark->count; ++i) {
        if (strcmp(benchmark->rows[i].name, "cpu") == 0 && benchmark->rows[i].ran) {
            return benchmark->rows[i].median_seconds;
        }
    }
    return NAN;
}

static void write_row(json *json, const benchmark *benchmark, const benchmark_row *row) {
    json_object(json, NULL);
    json_string(json, "name", row->name);
    json_string(json, "status", !row->ran ? "skipped" : row->is_void ? "void" : "ran");
    if (row->reason[0]) {
        json_string(json, "reason", row->reason);
    }
    if (row->ran) {
        json_string(json, "precision", row->precision);
        json_array(json, "train_seconds");
        for (int64_t i = 0; i < row->repeats; ++i) {
            json_double(json, NULL, row->seconds[i]);
        }
        json_end(json);
        json_double(json, "median_seconds", row->median_seconds);
        json_double(json, "samples_per_second", (double)row->samples / row->median_seconds);
        json_double(json, "speedup_over_cpu", cpu_seconds(benchmark) / row->median_seconds);
        json_array(json, "epoch_loss");
        for (int64_t e = 0; e < benchmark->epochs; ++e) {
            json_double(json, NULL, row->epoch_loss[e]);
        }
        json_end(json);
        json_double(json, "test_mse", row->test_mse);
        json_int(json, "peak_memory_bytes", row->peak_memory);
    }
    json_end(json);
}

static void write_data(json *json, const dataset *dataset, const char *source) {
    int32_t days = 0;
    for (int32_t t = 0; t < dataset->market->count; ++t) {
        days = dataset->market->tickers[t].days > days ? dataset->market->tickers[t].days : days;
    }
    json_object(json, "data");
    json_string(json, "source", source);
    json_int(json, "tickers", dataset->market->count);
    json_int(json, "rows_per_ticker", days);
    json_int(json, "samples", dataset->labelled_rows);
    json_int(json, "windows",
             dataset->train_windows + dataset->validation_windows + dataset->test_windows);
    json_int(json, "train_windows", dataset->train_windows);
    json_string(json, "sha256", dataset->market->sha256);
    json_end(json);
}

/* The same in every row that ran; fewer than epochs times windows where a last batch of one row is
 * left out. */
static int64_t samples_trained(const benchmark *benchmark) {
    for (int32_t i = 0; i < benchmark->count; ++i) {
        if (benchmark->rows[i].ran) {
            return benchmark->rows[i].samples;
        }
    }
    return 0;
}

static void write_protocol(json *json, const benchmark *benchmark) {
    int64_t parameters = 0;
    if (rp_model_parameter_count(&parameters, &benchmark->trainer.model) != RP_OK) {
        parameters = 0; /* the options were valid for every trainer that ran */
    }
    json_object(json, "protocol");
    json_int(json, "batch", benchmark->trainer.batch);
    json_int(json, "epochs", benchmark->epochs);
    json_int(json, "repeats", benchmark->repeats);
    json_int(json, "samples_trained", samples_trained(benchmark));
    json_int(json, "seed", (int64_t)benchmark->trainer.seed);
    json_double(json, "learning_rate", benchmark->trainer.learning_rate);
    json_int(json, "parameters", parameters);
    json_string(json, "precision", "each configuration's own");
    json_double(json, "loss_tolerance", BENCHMARK_LOSS_TOLERANCE);
    json_string(json, "timing",
                "wall clock around finished training steps, as many a call as take 0.25 s; "
                "creation, upload, graph capture and 3 undone warm-up steps excluded; repeats of "
                "all configurations take turns");
    json_end(json);
}

void benchmark_write_json(json *json, const benchmark *benchmark, const dataset *dataset,
                          const char *source) {
    write_data(json, dataset, source);
    write_protocol(json, benchmark);
    json_array(json, "configurations");
    for (int32_t i = 0; i < benchmark->count; ++i) {
        write_row(json, benchmark, &benchmark->rows[i]);
    }
    json_end(json);
}

void benchmark_print(const benchmark *benchmark) {
    printf("%-18s %-9s %10s %19s %13s %9s %12s\n", "configuration", "precision", "median s",
           "min..max s", "samples/s", "over cpu", "test MSE");
    for (int32_t i = 0; i < benchmark->count; ++i) {
        const benchmark_row *row = &benchmark->rows[i];
        if (!row->ran) {
            printf("%-18s skipped: %s\n", row->name, row->reason);
            continue;
        }
        double least = row->seconds[0], most = row->seconds[0];
        for (int64_t r = 1; r < row->repeats; ++r) {
            least = fmin(least, row->seconds[r]);
            most = fmax(most, row->seconds[r]);
        }
        const double ratio = cpu_seconds(benchmark) / row->median_seconds;
        char speedup[16] = "-";
        if (isfinite(ratio)) {
            snprintf(speedup, sizeof speedup, "%.1f", ratio);
        }
        printf("%-18s %-9s %10.4f %9.4f..%-8.4f %13.0f %9s %12.5e\n", row->name, row->precision,
               row->median_seconds, least, most, (double)row->samples / row->median_seconds,
               speedup, row->test_mse);
        if (row->is_void) {
            printf("%-18s void: %s\n", "", row->reason);
        }
    }
}
