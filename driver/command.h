/* The commands of return-predictor: cmd_<command>.c each, listed in main.c. */
#ifndef COMMAND_H
#define COMMAND_H

enum {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,  /* what failed is on standard error */
    EXIT_USAGE = 2,   /* a mistake in the command line */
    EXIT_LEAKAGE = 3, /* evaluate --strict: a result too good to be true */
};

struct command {
    const char *name;
    const char *summary;
    int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns EXIT_* */
};

int cmd_benchmark(int argc, char **argv);
int cmd_evaluate(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_predict(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_train(int argc, char **argv);
int cmd_synthesize(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_walk_forward(int argc, char **argv);

#endif
