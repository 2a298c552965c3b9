/* What the service shows of measured results: the speed table of `benchmark --out` and the verdict
 * of `evaluate --out`, read once at start. Both are optional. */
#ifndef SERVE_EVIDENCE_H
#define SERVE_EVIDENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum { EVIDENCE_CONFIGURATIONS = 16, EVIDENCE_STATISTICS = 32 };

typedef struct speed_row {
    char name[32];
    char status[16];  /* "ran", "skipped" */
    char reason[160]; /* "" unless skipped */
    double seconds;   /* median; NaN unless it ran */
    double samples_per_second;
    double speedup_over_cpu;
} speed_row;

typedef struct speed_table {
    bool known;
    char machine[256]; /* "Intel Xeon ..., NVIDIA H100" */
    char date[40];
    speed_row rows[EVIDENCE_CONFIGURATIONS];
    int32_t count;
} speed_table;

typedef struct statistic_value {
    char name[32];
    double value;
} statistic_value;

typedef struct report_summary {
    bool known;
    char model_version[16]; /* the model that was judged */
    char verdict[32], sentence[512], comparison[256];
    char first_date[12], last_date[12];
    statistic_value statistics[EVIDENCE_STATISTICS];
    int32_t count;
} report_summary;

typedef struct evidence {
    speed_table speed;
    report_summary report;
} evidence;

/* Paths may be NULL. A file that is given and can't be read is an error. */
bool evidence_read(evidence *out, const char *benchmark_path, const char *report_path,
                   error *error);

/* The named configuration's row, or NULL when it did not run. */
const speed_row *evidence_speed(const evidence *evidence, const char *configuration);

#endif
