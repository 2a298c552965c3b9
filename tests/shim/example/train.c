/* A C program of someone else's: trains a model through the installed rp.h and saves it. */
#include <math.h>
#include <stdio.h>

#include <rp/rp.h>

enum { ROWS = 1000, FEATURES = 4, TIME_STEPS = 20, WINDOWS = ROWS - TIME_STEPS };

static float features[ROWS][FEATURES], targets[ROWS];
static int32_t window_ends[WINDOWS];

static int fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, rp_last_error());
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 2)
        return fprintf(stderr, "usage: train CHECKPOINT\n"), 2;
    for (int row = 0; row < ROWS; ++row) {
        for (int f = 0; f < FEATURES; ++f)
            features[row][f] = sinf(0.1f * (float)(row * (f + 1)));
        targets[row] = 0.01f * features[row][0];
    }
    for (int w = 0; w < WINDOWS; ++w)
        window_ends[w] = TIME_STEPS - 1 + w;

    const rp_data data = {features[0], targets, ROWS, window_ends, WINDOWS};
    rp_trainer_options options;
    rp_trainer_options_init(&options);
    options.batch = 98;
    rp_trainer *trainer = NULL;
    if (rp_trainer_create(&trainer, &options, &data) != RP_OK)
        return fail("create");
    rp_progress progress = {0};
    for (int epoch = 0; epoch < 3; ++epoch)
        if (rp_trainer_run(trainer, WINDOWS, &progress) != RP_OK)
            return fail("run");
    if (rp_trainer_save(trainer, argv[1], NULL, 0) != RP_OK)
        return fail("save");
    printf("%lld samples, loss %.3e\n", (long long)progress.samples, progress.loss);
    rp_trainer_free(trainer);
    return 0;
}
