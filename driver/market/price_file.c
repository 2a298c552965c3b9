#include "market/price_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/date.h"
#include "market/price_header.h"
#include "market/price_series.h"

/* Beyond these a price or volume is a mistake, and returns computed from it could overflow. */
static const double least_price = 1e-9, most_price = 1e12, most_volume = 1e18;
static const double rounding = 1e-4; /* highs and lows that were adjusted differ by this much */
enum { BAD_ROWS_SHOWN = 5 };

typedef struct reading {
    price_file *out;
    const char *path;
    const market_options *options;
    price_header header;
    field *fields; /* [columns], of the line being read; owned */
    int32_t line;
    series_index index;
    date_form form;        /* of the first date */
    int32_t order_line[3]; /* by date_order: the first line that shows it; 0: none */
    bool newest_first;
    error *error;
} reading;

/* A bad row ends the reading, or is counted. */
static bool refuse(reading *r, int32_t line, const char *column, field value, const char *reason) {
    char shown[FIELD_SHOWN_SIZE];
    field_show(shown, value);
    if (!r->options->skip_bad_rows)
        return error_set(r->error,
                         "%s: line %" PRId32 ", column %s: '%s' %s; correct it, or leave such rows "
                         "out with --skip-bad-rows",
                         r->path, line, column, shown, reason);
    if (r->out->bad_rows++ < BAD_ROWS_SHOWN)
        text_printf(&r->out->bad, "%s: line %" PRId32 ", column %s: '%s' %s; row left out\n",
                    r->path, line, column, shown, reason);
    return true;
}

/* NULL when the value is sound, otherwise why it is not. */
static const char *check_value(field_state state, column_kind kind, double value, field field) {
    if (state == FIELD_EMPTY)
        return "is no value";
    if (state == FIELD_BAD)
        return memchr(field.text, ',', (size_t)field.length)
                   ? "is not a number; a decimal comma has to be a point"
                   : "is not a number";
    if (kind == COLUMN_VOLUME)
        return value < 0 ? "is negative" : value > most_volume ? "is too large" : NULL;
    if (value <= 0)
        return "is not a positive price";
    return value < least_price  ? "is too small for a price"
           : value > most_price ? "is too large for a price"
                                : NULL;
}

/* Days on which a ticker of a side-by-side file has nothing at all are not rows of it. */
static bool group_is_empty(const reading *r, const column_group *group) {
    double ignored;
    for (int kind = 0; kind < COLUMN_VALUES; ++kind)
        if (group->at[kind] >= 0 &&
            field_number(&ignored, r->fields[group->at[kind]], r->header.delimiter) != FIELD_EMPTY)
            return false;
    return true;
}

static bool read_group(reading *r, const column_group *group, int32_t series, int32_t date) {
    double value[COLUMN_VALUES] = {0};
    for (int kind = 0; kind < COLUMN_VALUES; ++kind) {
        if (group->at[kind] < 0)
            continue;
        field field = r->fields[group->at[kind]];
        field_state state = field_number(&value[kind], field, r->header.delimiter);
        const char *reason = check_value(state, (column_kind)kind, value[kind], field);
        if (reason)
            return refuse(r, r->line, column_name[kind], field, reason);
    }
    const int32_t high = group->at[COLUMN_HIGH], low = group->at[COLUMN_LOW];
    if (high >= 0 && low >= 0 && value[COLUMN_HIGH] < value[COLUMN_LOW] * (1 - rounding))
        return refuse(r, r->line, "high", r->fields[high], "is below the day's low");
    price_row row = {date, r->line, value[r->out->adjusted ? COLUMN_ADJ_CLOSE : COLUMN_CLOSE],
                     value[COLUMN_VOLUME]};
    if (!price_series_append(&r->out->series[series], &row))
        return error_set(r->error, "%s: no memory for its rows", r->path);
    return true;
}

/* The series of a row: the file's only one, or the one that the ticker column names. */
static bool find_series(reading *r, int32_t *series, bool *bad) {
    *series = 0;
    *bad = false;
    if (r->header.ticker < 0)
        return true;
    field name = r->fields[r->header.ticker];
    if (name.length < 1 || name.length >= TICKER_NAME_SIZE) {
        *bad = true;
        return refuse(r, r->line, "ticker", name, "is not a ticker (1 to 31 bytes)");
    }
    *series = series_index_find(&r->index, r->out, name.text, name.length);
    return *series >= 0 || error_set(r->error, "%s: no memory for its tickers", r->path);
}

static bool read_row(reading *r, const char *text, const char *end) {
    const price_header *header = &r->header;
    field whole = {text, (int32_t)(end - text < 1000 ? end - text : 1000)};
    int32_t date, series,
        count = field_split(r->fields, header->columns, text, end, header->delimiter);
    bool bad;
    if (count != header->columns)
        return refuse(r, r->line, "1", whole,
                      count < 0                 ? "has a quote out of place"
                      : count < header->columns ? "has fewer fields than the header (cut short?)"
                                                : "has more fields than the header");
    date_form form;
    field_state state = field_date(&date, &form, r->fields[header->date]);
    int32_t *order_line = &r->order_line[field_date_order(r->fields[header->date])];
    if (*order_line == 0)
        *order_line = r->line;
    if (state != FIELD_OK)
        return refuse(r, r->line, "date", r->fields[header->date],
                      state == FIELD_EMPTY ? "is no date"
                                           : "is not a date as YYYY-MM-DD, MM/DD/YYYY or YYYYMMDD");
    if (r->form == DATE_FORMS)
        r->form = form;
    if (header->period >= 0 && !field_equals(r->fields[header->period], "d"))
        return refuse(r, r->line, "period", r->fields[header->period], "is not D, daily");
    if (!find_series(r, &series, &bad) || bad)
        return bad && r->options->skip_bad_rows;
    if (header->group_count == 1)
        return read_group(r, &header->groups[0], series, date);
    for (int32_t i = 0; i < header->group_count; ++i)
        if (!group_is_empty(r, &header->groups[i]) && !read_group(r, &header->groups[i], i, date))
            return false;
    return true;
}

static bool read_rows(reading *r, const char *text, const char *end) {
    r->line = r->header.lines;
    while (text < end) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        r->out->cut_short = !line_end;
        if (!line_end)
            line_end = end;
        ++r->line;
        size_t blank = 0;
        while (text + blank < line_end && (text[blank] == ' ' || text[blank] == '\r'))
            ++blank;
        if (text + blank < line_end && !read_row(r, text, line_end))
            return false;
        text = line_end + 1;
    }
    return true;
}

/* The date of row `day`, which does not fit in. */
static bool refuse_date(reading *r, const price_series *series, int32_t day, const char *reason) {
    char text[DATE_SIZE];
    date_format(text, series->dates[day]);
    return refuse(r, series->lines[day], "date", (field){text, DATE_SIZE - 1}, reason);
}

/* Of row `last` and the earlier day `day` that follows it, is it `last` that is out of place? So it
 * is when both neighbours of it would be in order without it. */
static bool jumps_ahead(const price_series *series, int32_t last, int32_t day) {
    const int32_t *dates = series->dates;
    return dates[day] < dates[last] && day + 1 < series->days && dates[day + 1] > dates[day] &&
           dates[day + 1] < dates[last] && (last == 0 || dates[last - 1] < dates[day]);
}

/* Days must increase; the newest may come first in the file, and then all decrease. */
static bool check_order(reading *r, price_series *series) {
    r->newest_first = price_series_orient(series);
    int32_t kept = 0;
    for (int32_t day = 0; day < series->days; ++day) {
        if (kept > 0 && jumps_ahead(series, kept - 1, day) &&
            !refuse_date(r, series, --kept, "is later than the days after it"))
            return false;
        if (kept > 0 && series->dates[day] <= series->dates[kept - 1]) {
            char reason[64] = "is out of order";
            if (series->dates[day] == series->dates[kept - 1])
                snprintf(reason, sizeof reason, "is there twice, first on line %" PRId32,
                         series->lines[kept - 1]);
            if (!refuse_date(r, series, day, reason))
                return false;
            continue;
        }
        price_series_move(series, kept++, day);
    }
    series->days = kept;
    return true;
}

/* Left out as bad rows, days above 12 would let the others pass for months. */
static bool check_date_order(const reading *r) {
    if (r->order_line[ORDER_DAY_FIRST] == 0 || r->order_line[ORDER_MONTH_FIRST] > 0)
        return true;
    return error_set(r->error,
                     "%s: line %" PRId32 ": the dates are written day first (DD/MM/YYYY); write "
                     "them as YYYY-MM-DD",
                     r->path, r->order_line[ORDER_DAY_FIRST]);
}

/* "AAPL" of "prices/AAPL.csv.gz" */
static bool ticker_of_path(char name[TICKER_NAME_SIZE], const char *path, error *error) {
    const char *slash = strrchr(path, '/'), *begin = slash ? slash + 1 : path;
    size_t length = strlen(begin);
    static const char *const endings[] = {".gz", ".csv", ".txt", ".tsv"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; ++i) {
        size_t ending = strlen(endings[i]);
        if (length > ending) {
            field tail = {begin + length - ending, (int32_t)ending};
            if (field_equals(tail, endings[i]))
                length -= ending;
        }
    }
    if (length < 1 || length >= TICKER_NAME_SIZE)
        return error_set(error,
                         "%s: the file's name is its ticker, and '%.*s' is longer than %d "
                         "bytes; rename it",
                         path, (int)length, begin, TICKER_NAME_SIZE - 1);
    memcpy(name, begin, length);
    name[length] = '\0';
    return true;
}

static bool prepare_series(reading *r) {
    char name[TICKER_NAME_SIZE];
    if (r->header.ticker >= 0)
        return true;
    for (int32_t i = 0; i < r->header.group_count; ++i) {
        const char *ticker = r->header.groups[i].ticker;
        if (*ticker == '\0') {
            if (!ticker_of_path(name, r->path, r->error))
                return false;
            ticker = name;
        }
        if (price_file_add(r->out, ticker, (int32_t)strlen(ticker)) < 0)
            return error_set(r->error, "%s: no memory for its tickers", r->path);
    }
    return true;
}

/* What is plainly no price file is called what it is. */
static bool check_text(const char *path, const char *data, size_t size, error *error) {
    size_t at = 0;
    while (at < size && strchr(" \t\r\n", data[at]) && data[at] != '\0')
        ++at;
    if (at == size)
        return error_set(error, "%s: empty", path);
    if (size >= 2 && (memcmp(data, "\xff\xfe", 2) == 0 || memcmp(data, "\xfe\xff", 2) == 0))
        return error_set(error, "%s: UTF-16 text; save it as UTF-8", path);
    if (memchr(data, '\r', size) && !memchr(data, '\n', size))
        return error_set(error, "%s: its lines end as on old Macs (CR); save it with LF", path);
    const char *nul = memchr(data, '\0', size);
    if (nul)
        return error_set(error, "%s: binary, not text: a NUL at byte %zu", path,
                         (size_t)(nul - data));
    field first = {data + at, 5};
    bool page = size - at >= 5 && (field_equals(first, "<html") || field_equals(first, "<!doc"));
    if (page || data[at] == '{' || data[at] == '[')
        return error_set(error, "%s: %s, not a price file; did a download fail?", path,
                         page ? "a web page" : "JSON");
    return true;
}

static void explain(reading *r, bool marked) {
    const price_header *header = &r->header;
    text *out = &r->out->explanation;
    text_printf(out, "%s: %s%s-separated, columns", r->path, marked ? "byte-order mark, " : "",
                header->delimiter == ','   ? "comma"
                : header->delimiter == ';' ? "semicolon"
                                           : "tab");
    for (int kind = 0; kind < COLUMN_VALUES; ++kind)
        if (header->groups[0].at[kind] >= 0)
            text_printf(out, " %s", column_name[kind]);
    if (header->unknown_columns > 0)
        text_printf(out, " (%" PRId32 " others ignored)", header->unknown_columns);
    text_printf(out, ", dates %s, %s first",
                r->form < DATE_FORMS ? date_form_name[r->form] : "none",
                r->newest_first ? "newest" : "oldest");
    if (header->lines > 1)
        text_printf(out, ", %" PRId32 " header lines", header->lines);
    if (!r->out->adjusted)
        text_append_string(out, ", no adjusted close: close is taken as adjusted already");
    if (r->out->count == 1)
        text_printf(out, "; ticker %s (from %s), %" PRId32 " rows\n", r->out->series[0].name,
                    header->ticker >= 0         ? "a column"
                    : *header->groups[0].ticker ? "the header"
                                                : "the file's name",
                    r->out->series[0].days);
    else
        text_printf(out, "; %" PRId32 " tickers %s\n", r->out->count,
                    header->ticker >= 0 ? "in a column" : "side by side");
}

bool price_file_parse(price_file *out, const char *path, const char *data, size_t size,
                      const market_options *options, error *error) {
    *out = (price_file){.count = 0};
    reading r = {.out = out, .path = path, .options = options, .form = DATE_FORMS, .error = error};
    bool ok = false, marked = size >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0;
    const char *end = data + size, *rows = data;
    data += marked ? 3 : 0;
    if (!check_text(path, data, (size_t)(end - data), error) ||
        !price_header_read(&r.header, path, data, end, &rows, error))
        goto done;
    out->adjusted = r.header.adjusted;
    r.fields = calloc((size_t)r.header.columns, sizeof *r.fields);
    if (!r.fields) {
        error_set(error, "%s: no memory for %d columns", path, r.header.columns);
        goto done;
    }
    if (!prepare_series(&r) || !read_rows(&r, rows, end) || !check_date_order(&r))
        goto done;
    int64_t days = 0;
    for (int32_t i = 0; i < out->count; ++i) {
        if (!check_order(&r, &out->series[i]))
            goto done;
        days += out->series[i].days;
    }
    if (days == 0) {
        error_set(error, "%s: a header and no sound row", path);
        goto done;
    }
    explain(&r, marked);
    ok = true;
done:
    free(r.fields);
    free(r.index.slots);
    price_header_free(&r.header);
    if (!ok)
        price_file_free(out);
    return ok;
}

void price_file_free(price_file *file) {
    for (int32_t i = 0; i < file->count; ++i)
        price_series_free(&file->series[i]);
    free(file->series);
    text_free(&file->bad);
    text_free(&file->explanation);
    *file = (price_file){.count = 0};
}
