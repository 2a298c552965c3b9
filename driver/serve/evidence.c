#include "serve/evidence.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "serve/json_body.h"

static const char *member(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

#define COPY(to, from) snprintf(to, sizeof(to), "%s", from)

static void read_speed(speed_table *out, const json_t *root) {
    const json_t *machine = json_object_get(root, "machine");
    const char *gpu = member(machine, "gpu");
    snprintf(out->machine, sizeof out->machine, "%s%s%s", member(machine, "cpu"),
             gpu[0] ? ", " : "", gpu);
    COPY(out->date, member(root, "date"));
    size_t index;
    json_t *item;
    json_array_foreach(json_object_get(root, "configurations"), index, item) {
        if (out->count == EVIDENCE_CONFIGURATIONS) {
            break;
        }
        speed_row *row = &out->rows[out->count++];
        COPY(row->name, member(item, "name"));
        COPY(row->status, member(item, "status"));
        COPY(row->reason, member(item, "reason"));
        row->seconds = number(item, "median_seconds");
        row->samples_per_second = number(item, "samples_per_second");
        row->speedup_over_cpu = number(item, "speedup_over_cpu");
    }
    out->known = out->count > 0;
}

static void read_report(report_summary *out, const json_t *root) {
    const json_t *verdict = json_object_get(root, "verdict");
    const json_t *data = json_object_get(root, "data");
    const json_t *model = json_array_get(json_object_get(root, "models"), 0);
    COPY(out->model_version, member(model, "model_version"));
    COPY(out->verdict, member(verdict, "kind"));
    COPY(out->sentence, member(verdict, "sentence"));
    COPY(out->comparison, member(verdict, "comparison"));
    COPY(out->first_date, member(data, "test_first_date"));
    COPY(out->last_date, member(data, "test_last_date"));
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(model, "statistics"), key, value) {
        if (json_is_number(value) && out->count < EVIDENCE_STATISTICS) {
            statistic_value *statistic = &out->statistics[out->count++];
            COPY(statistic->name, key);
            statistic->value = json_number_value(value);
        }
    }
    out->known = verdict != NULL;
}

static json_t *read_document(const char *path, error *error) {
    char *data;
    size_t size;
    struct error reason = {""};
    if (!file_read(path, &data, &size, error)) {
        return NULL;
    }
    json_t *root = json_body_parse(data, size, &reason);
    free(data);
    if (!root) {
        error_set(error, "%s: %.200s", path, reason.message);
    }
    return root;
}

bool evidence_read(evidence *out, const char *benchmark_path, const char *report_path,
                   error *error) {
    memset(out, 0, sizeof *out);
    if (benchmark_path) {
        json_t *root = read_document(benchmark_path, error);
        if (!root) {
            return false;
        }
        read_speed(&out->speed, root);
        json_decref(root);
        if (!out->speed.known) {
            return error_set(error, "%s: has no configurations; give what benchmark --out wrote",
                             benchmark_path);
        }
    }
    if (report_path) {
        json_t *root = read_document(report_path, error);
        if (!root) {
            return false;
        }
        read_report(&out->report, root);
        json_decref(root);
        if (!out->report.known) {
            return error_set(error, "%s: has no verdict; give what evaluate --out wrote",
                             report_path);
        }
    }
    return true;
}

const speed_row *evidence_speed(const evidence *evidence, const char *configuration) {
    for (int32_t i = 0; i < evidence->speed.count; i++) {
        const speed_row *row = &evidence->speed.rows[i];
        if (strcmp(row->name, configuration) == 0 && strcmp(row->status, "ran") == 0) {
            return row;
        }
    }
    return NULL;
}
