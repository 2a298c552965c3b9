/* return-predictor: the table of its commands, and nothing else. */
#include <stdio.h>
#include <string.h>

#include "base/version.h"
#include "command.h"

static const struct command commands[] = {
    {"synthesize", "make a synthetic market with known properties", cmd_synthesize},
    {"inspect", "show one window's raw and scaled features and its label", cmd_inspect},
#ifdef RP_HAVE_LIBRARY
    {"train", "train a model and write its checkpoint", cmd_train},
    {"evaluate", "say what a model is worth on days it has not seen", cmd_evaluate},
    {"predict", "predict the next day's returns, with intervals", cmd_predict},
    {"benchmark", "time the same training in several configurations", cmd_benchmark},
    {"verify", "compare the fused operator with libtorch's own, bit by bit", cmd_verify},
    {"walk-forward", "refit month by month, over seeds, and judge it all", cmd_walk_forward},
    {"serve", "answer predictions over HTTP", cmd_serve},
#endif
    {NULL, NULL, NULL},
};

static void print_help(void) {
    printf("usage: return-predictor <command> [options]\n\n");
    for (const struct command *command = commands; command->name; ++command)
        printf("  %-14s%s\n", command->name, command->summary);
    printf("\n'return-predictor <command> --help' lists a command's options.\n");
}

int main(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        print_help();
        return argc < 2 ? EXIT_USAGE : EXIT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("return-predictor %s (%s)\n", program_version, program_revision);
        return EXIT_DONE;
    }
    for (const struct command *command = commands; command->name; ++command)
        if (strcmp(argv[1], command->name) == 0)
            return command->run(argc - 1, argv + 1);
    fprintf(stderr,
            "return-predictor: '%s' is not a command\n"
            "See 'return-predictor --help'.\n",
            argv[1]);
    return EXIT_USAGE;
}
