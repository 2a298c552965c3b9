/* benchmark: the speed table over the configurations that this machine can run. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/options.h"
#include "base/result.h"
#include "benchmark/benchmark.h"
#include "command.h"
#include "market/market.h"
#include "training/training.h"

typedef struct benchmark_command {
    const char *prices, *out;
    market_options market;
    string_list configurations;
    int argc;
    char **argv;
} benchmark_command;

static bool add_configurations(benchmark *benchmark, const string_list *list, error *error) {
    const bool all = list->count == 0 || (list->count == 1 && strcmp(list->items[0], "all") == 0);
    if (!all) {
        for (int32_t i = 0; i < list->count; ++i) {
            if (!benchmark_add(benchmark, list->items[i], error)) {
                return false;
            }
        }
        return true;
    }
    for (int32_t i = 0; i < rp_configuration_count(); ++i) {
        rp_configuration configuration;
        if (rp_configuration_describe(&configuration, i) != RP_OK) {
            return training_fail(error, "configurations");
        }
        if (!benchmark_add(benchmark, configuration.name, error)) {
            return false;
        }
    }
    return true;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] != '\0' ? slash + 1 : path;
}

static bool write_result(const benchmark_command *command, const benchmark *benchmark,
                         const dataset *dataset, error *error) {
    if (!command->out) {
        return true;
    }
    rp_machine machine;
    if (rp_machine_describe(&machine) != RP_OK) {
        return training_fail(error, "machine");
    }
    json json = {.lines = 4};
    result_begin(&json, command->argc, command->argv, &machine);
    benchmark_write_json(&json, benchmark, dataset, base_name(command->prices));
    json_end(&json);
    const bool ok = json_write(&json, command->out, error);
    json_free(&json);
    return ok;
}

static bool run(benchmark_command *command, benchmark *benchmark, error *error) {
    market market = {0};
    dataset dataset = {0};
    dataset_options options;
    dataset_options_init(&options);
    const bool ok = add_configurations(benchmark, &command->configurations, error) &&
                    market_read(&market, command->prices, &command->market, error) &&
                    dataset_build(&dataset, &market, &options, NULL, error) &&
                    benchmark_run(benchmark, &dataset, error) &&
                    write_result(command, benchmark, &dataset, error);
    if (ok) {
        benchmark_print(benchmark);
    }
    dataset_free(&dataset);
    market_free(&market);
    return ok;
}

int cmd_benchmark(int argc, char **argv) {
    benchmark_command command = {.argc = argc, .argv = argv};
    static benchmark benchmark; /* some 20 KB: too much for a stack frame to hide */
    int64_t threads = 0;
    benchmark.epochs = 10;
    benchmark.repeats = 3;
    rp_trainer_options_init(&benchmark.trainer);
    option options[] = {
        MARKET_OPTIONS(command.prices, command.market),
        {"configurations", OPTION_LIST, &command.configurations, "all|LIST",
         "e.g. cpu,gpu,gpu:fp32 (default: all)"},
        {"repeat", OPTION_INT64, &benchmark.repeats, "K", "timings of each", .least = 1,
         .most = BENCHMARK_REPEATS},
        {"epochs", OPTION_INT64, &benchmark.epochs, "N", "passes a timing", .least = 1,
         .most = 10000},
        {"batch", OPTION_INT64, &benchmark.trainer.batch, "B", "windows an optimiser step",
         .least = 2, .most = 1 << 20},
        {"seed", OPTION_UINT64, &benchmark.trainer.seed, "S", "of weights, order and dropout"},
        {"threads", OPTION_INT64, &threads, "N", "on the CPU; 0: one a core", .least = 0,
         .most = 1024},
        {"out", OPTION_STRING, &command.out, "FILE", "the table as JSON"},
        {"quiet", OPTION_FLAG, &benchmark.quiet, NULL, "only the table"},
    };
    int status;
    if (!OPTIONS_PARSE("benchmark", "Times the same training in several configurations.", options,
                       argc, argv, &status)) {
        return status;
    }
    benchmark.trainer.threads = (int32_t)threads;
    error error = {0};
    const bool ok = run(&command, &benchmark, &error);
    benchmark_free(&benchmark);
    if (!ok) {
        fprintf(stderr, "return-predictor benchmark: %s\n", error.message);
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}
