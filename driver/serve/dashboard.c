/* GET /: people get a page whose facts are readable without JavaScript, programs get JSON. The
 * page and what it needs lie inside the program. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/version.h"
#include "serve/asset.h"
#include "serve/handlers.h"
#include "serve/model_card.h"
#include "serve/response.h"
#include "serve/tickers.h"

enum { LATEST_SHOWN = 500 }; /* a page of more rows is no help; /tickers has all */

/* Inline styles: dygraphs places its labels with them. */
static const char policy[] = "default-src 'self'; style-src 'self' 'unsafe-inline'; "
                             "img-src 'self' data:; base-uri 'none'; "
                             "frame-ancestors 'none'; form-action 'self'";

const asset *asset_find(const char *name) {
    for (size_t i = 0; i < asset_count; i++) {
        if (strcmp(assets[i].name, name) == 0) {
            return &assets[i];
        }
    }
    return NULL;
}

/* ---- The page: {{name}} in dashboard.html is replaced by what the writer of that name writes --
 */

static void append_html(text *out, const char *string) {
    for (; *string; string++) {
        switch (*string) {
        case '<':
            text_append_string(out, "&lt;");
            break;
        case '>':
            text_append_string(out, "&gt;");
            break;
        case '&':
            text_append_string(out, "&amp;");
            break;
        case '"':
            text_append_string(out, "&quot;");
            break;
        default:
            text_append(out, string, 1);
        }
    }
}

static void write_version(text *out, const snapshot *snapshot) {
    append_html(out, snapshot->model.version);
}

static void write_program(text *out, const snapshot *snapshot) {
    (void)snapshot;
    append_html(out, program_version);
}

static void write_verdict(text *out, const snapshot *snapshot) {
    const report_summary *report = &snapshot->evidence.report;
    append_html(out, report->known ? report->sentence
                                   : "No report was given to this service, so nothing is claimed "
                                     "about the model's skill.");
}

static void write_fact(void *context, const char *key, const char *label, const char *value) {
    text *out = context;
    (void)key;
    text_append_string(out, "<tr><th scope=\"row\">");
    append_html(out, label);
    text_append_string(out, "</th><td>");
    append_html(out, value);
    text_append_string(out, "</td></tr>\n");
}

static void write_card(text *out, const snapshot *snapshot) {
    model_card_list(snapshot, write_fact, out);
}

static void write_options(text *out, const snapshot *snapshot) {
    for (int32_t i = 0; i < snapshot->market.count; i++) {
        text_append_string(out, "<option>");
        append_html(out, snapshot->market.tickers[i].name);
        text_append_string(out, "</option>\n");
    }
}

static void write_latest_row(text *out, const latest *latest) {
    const forecast *f = &latest->forecast;
    text_append_string(out, "<tr><th scope=\"row\">");
    append_html(out, latest->name);
    text_printf(out, "</th><td>%s</td><td>%.2f</td><td>%+.3f%%</td>", latest->date,
                latest->adj_close, 100 * (double)f->value);
    if (f->has_intervals) {
        text_printf(out, "<td>%+.2f%% to %+.2f%%</td><td>%+.2f%% to %+.2f%%</td></tr>\n",
                    100 * f->interval[0][0], 100 * f->interval[0][1], 100 * f->interval[1][0],
                    100 * f->interval[1][1]);
    } else {
        text_append_string(out, "<td>none</td><td>none</td></tr>\n");
    }
}

static void write_latest(text *out, const snapshot *snapshot) {
    for (int32_t i = 0; i < snapshot->market.count && i < LATEST_SHOWN; i++) {
        latest latest;
        if (tickers_latest(&latest, snapshot, i)) {
            write_latest_row(out, &latest);
        }
    }
}

static void write_speed_row(text *out, const speed_row *row) {
    text_append_string(out, "<tr><th scope=\"row\">");
    append_html(out, row->name);
    if (isnan(row->seconds)) {
        text_append_string(out, "</th><td colspan=\"3\">");
        append_html(out, row->status);
        text_append_string(out, row->reason[0] ? ": " : "");
        append_html(out, row->reason);
        text_append_string(out, "</td></tr>\n");
    } else if (isnan(row->speedup_over_cpu)) {
        text_printf(out, "</th><td>%.3f</td><td>%.0f</td><td>-</td></tr>\n", row->seconds,
                    row->samples_per_second);
    } else {
        text_printf(out, "</th><td>%.3f</td><td>%.0f</td><td>%.1f</td></tr>\n", row->seconds,
                    row->samples_per_second, row->speedup_over_cpu);
    }
}

static void write_speed(text *out, const snapshot *snapshot) {
    const speed_table *speed = &snapshot->evidence.speed;
    if (!speed->known) {
        text_append_string(out, "<tr><td colspan=\"4\">No speed table was given to this service "
                                "(--benchmark FILE).</td></tr>\n");
    }
    for (int32_t i = 0; i < speed->count; i++) {
        write_speed_row(out, &speed->rows[i]);
    }
}

static void write_machine(text *out, const snapshot *snapshot) {
    const speed_table *speed = &snapshot->evidence.speed;
    if (speed->known) {
        text_append_string(out, "Measured on ");
        append_html(out, speed->machine);
        text_append_string(out, ", ");
        append_html(out, speed->date);
        text_append_string(out, ".");
    }
}

static const struct {
    const char *name;
    void (*write)(text *out, const snapshot *snapshot);
} writers[] = {
    {"version", write_version}, {"program", write_program}, {"verdict", write_verdict},
    {"card", write_card},       {"options", write_options}, {"latest", write_latest},
    {"speed", write_speed},     {"machine", write_machine},
};

static void write_named(text *out, const snapshot *snapshot, const char *name, size_t size) {
    for (size_t i = 0; i < sizeof writers / sizeof *writers; i++) {
        if (strlen(writers[i].name) == size && memcmp(writers[i].name, name, size) == 0) {
            writers[i].write(out, snapshot);
        }
    }
}

static void write_page(text *out, const snapshot *snapshot) {
    const asset *page = asset_find("dashboard.html");
    const char *at = page ? (const char *)page->data : "";
    for (const char *open; (open = strstr(at, "{{")) != NULL;) {
        const char *close = strstr(open, "}}");
        if (!close) {
            break;
        }
        text_append(out, at, (size_t)(open - at));
        write_named(out, snapshot, open + 2, (size_t)(close - open - 2));
        at = close + 2;
    }
    text_append_string(out, at);
}

static void send_page(request *request) {
    text out = {0};
    write_page(&out, request->snapshot);
    if (text_ok(&out)) {
        response_send(request, &(response){.status = 200,
                                           .type = "text/html; charset=utf-8",
                                           .data = out.data,
                                           .size = out.length,
                                           .headers = {{"Content-Security-Policy", policy},
                                                       {"Vary", "Accept"},
                                                       {"Cache-Control", "no-store"}}});
    } else {
        response_send_refusal(request, 503, "out of memory");
    }
    text_free(&out);
}

/* ---- The same for programs ------------------------------------------------------------------- */

static double seconds_of(const evidence *evidence, const char *configuration) {
    const speed_row *row = evidence_speed(evidence, configuration);
    return row ? row->seconds : NAN;
}

/* The original system's fields; null where no such figure was measured. */
static void write_benchmark(json *json, const evidence *evidence) {
    const double cpu = seconds_of(evidence, "cpu"), gpu = seconds_of(evidence, "gpu"),
                 kernel = seconds_of(evidence, "gpu-kernel");
    json_object(json, "benchmark");
    json_double(json, "cpu_time_seconds", cpu);
    json_double(json, "gpu_time_seconds", gpu);
    json_double(json, "kernel_time_seconds", kernel);
    json_double(json, "cpu_to_gpu_speedup", cpu / gpu);
    json_double(json, "cpu_to_kernel_speedup", cpu / kernel);
    json_string(json, "machine", evidence->speed.known ? evidence->speed.machine : NULL);
    json_array(json, "configurations");
    for (int32_t i = 0; i < evidence->speed.count; i++) {
        const speed_row *row = &evidence->speed.rows[i];
        json_object(json, NULL);
        json_string(json, "name", row->name);
        json_string(json, "status", row->status);
        json_double(json, "median_seconds", row->seconds);
        json_double(json, "samples_per_second", row->samples_per_second);
        json_double(json, "speedup_over_cpu", row->speedup_over_cpu);
        json_end(json);
    }
    json_end(json);
    json_end(json);
}

static void send_service(request *request) {
    json json = {.lines = 1};
    json_object(&json, NULL);
    json_string(&json, "service", "return-predictor");
    json_string(&json, "status", "running");
    json_string(&json, "version", program_version);
    json_string(&json, "model", MODEL_NAME);
    json_string(&json, "model_version", request->snapshot->model.version);
    write_benchmark(&json, &request->snapshot->evidence);
    json_string(&json, "api", "/openapi.json");
    json_end(&json);
    response_send_json(request, 200, &json);
}

void handle_home(request *request) {
    if (request->headers.accept && strstr(request->headers.accept, "text/html")) {
        send_page(request);
    } else {
        send_service(request);
    }
}

static void send_asset(request *request, const asset *asset) {
    const char *tag = request->headers.if_none_match;
    const bool same = tag && strstr(tag, asset->tag);
    response_send(request, &(response){.status = same ? 304 : 200,
                                       .type = asset->type,
                                       .data = asset->data,
                                       .size = same ? 0 : asset->size,
                                       .lasting = true,
                                       .headers = {{"ETag", asset->tag},
                                                   {"Cache-Control", "no-cache"},
                                                   {"X-Content-Type-Options", "nosniff"}}});
}

void handle_asset(request *request) {
    const asset *asset = asset_find(request->segment[1]);
    if (asset && strcmp(asset->name, "dashboard.html") != 0) {
        send_asset(request, asset);
    } else {
        response_send_error(request, 404, "no such asset");
    }
}

void handle_openapi(request *request) {
    send_asset(request, asset_find("openapi.json"));
}
