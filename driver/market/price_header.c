#include "market/price_header.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_COLUMNS = 65536, HEADER_LINES = 3 };

const char *const column_name[COLUMN_KINDS] = {"open",   "high", "low",    "close", "adj_close",
                                               "volume", "date", "ticker", "period"};

/* Spellings without case, spaces and punctuation. */
static const struct {
    const char *spelling;
    column_kind kind;
} spellings[] = {
    {"date", COLUMN_DATE},     {"datetime", COLUMN_DATE},      {"timestamp", COLUMN_DATE},
    {"day", COLUMN_DATE},      {"open", COLUMN_OPEN},          {"high", COLUMN_HIGH},
    {"low", COLUMN_LOW},       {"close", COLUMN_CLOSE},        {"closelast", COLUMN_CLOSE},
    {"last", COLUMN_CLOSE},    {"adjclose", COLUMN_ADJ_CLOSE}, {"adjustedclose", COLUMN_ADJ_CLOSE},
    {"volume", COLUMN_VOLUME}, {"vol", COLUMN_VOLUME},         {"ticker", COLUMN_TICKER},
    {"symbol", COLUMN_TICKER}, {"tic", COLUMN_TICKER},         {"name", COLUMN_TICKER},
    {"per", COLUMN_PERIOD},
};

static column_kind kind_of(field field) {
    char plain[24];
    int32_t length = 0;
    for (int32_t i = 0; i < field.length; ++i) {
        char c = field.text[i];
        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        if (c < 'a' || c > 'z')
            continue;
        if (length == (int32_t)sizeof plain - 1)
            return COLUMN_UNKNOWN;
        plain[length++] = c;
    }
    plain[length] = '\0';
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; ++i)
        if (strcmp(plain, spellings[i].spelling) == 0)
            return spellings[i].kind;
    return COLUMN_UNKNOWN;
}

static bool is_value(column_kind kind) {
    return kind < COLUMN_VALUES;
}

/* The first lines of the file, split. */
typedef struct lines {
    field *fields[HEADER_LINES]; /* [columns] each, owned; NULL after the last line */
    const char *end[HEADER_LINES];
    int32_t columns;
} lines;

static void lines_free(lines *lines) {
    for (int i = 0; i < HEADER_LINES; ++i)
        free(lines->fields[i]);
}

static char find_delimiter(const char *text, const char *end) {
    static const char candidates[] = {',', ';', '\t'};
    int32_t best = 0;
    char delimiter = ',';
    for (size_t i = 0; i < sizeof candidates; ++i) {
        int32_t count = field_split(NULL, 0, text, end, candidates[i]);
        if (count > best) {
            best = count;
            delimiter = candidates[i];
        }
    }
    return delimiter;
}

/* Splits up to three lines that have as many fields as the first. */
static bool lines_split(lines *out, price_header *header, const char *path, const char *text,
                        const char *end, error *error) {
    for (int i = 0; i < HEADER_LINES && text < end; ++i) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        if (!line_end)
            line_end = end;
        if (i == 0)
            header->delimiter = find_delimiter(text, line_end);
        int32_t count = field_split(NULL, 0, text, line_end, header->delimiter);
        if (i > 0 && count != out->columns)
            return true;
        if (count < 0 || count > MOST_COLUMNS)
            return error_set(error, "%s: line 1: not a header: %s", path,
                             count < 0 ? "a quote is out of place" : "too many columns");
        out->columns = count;
        out->fields[i] = calloc((size_t)count, sizeof(field));
        if (!out->fields[i])
            return error_set(error, "%s: no memory for %d columns", path, count);
        field_split(out->fields[i], count, text, line_end, header->delimiter);
        out->end[i] = line_end < end ? line_end + 1 : end;
        text = out->end[i];
    }
    return true;
}

/* Places one value column; the same one twice in a group is a mistake in the file. */
static bool place(column_group *group, column_kind kind, int32_t column, const char *path,
                  error *error) {
    if (group->at[kind] >= 0)
        return error_set(error, "%s: line 1: columns %d and %d are both '%s'; remove one", path,
                         group->at[kind] + 1, column + 1, column_name[kind]);
    group->at[kind] = column;
    return true;
}

static column_group *add_group(price_header *header) {
    size_t size = (size_t)header->group_count + 1;
    column_group *groups = realloc(header->groups, size * sizeof *groups);
    if (!groups)
        return NULL;
    header->groups = groups;
    column_group *group = &groups[header->group_count++];
    *group = (column_group){.ticker = ""};
    for (int kind = 0; kind < COLUMN_VALUES; ++kind)
        group->at[kind] = -1;
    return group;
}

static column_group *find_group(price_header *header, const char *ticker) {
    for (int32_t i = header->group_count - 1; i >= 0; --i)
        if (strcmp(header->groups[i].ticker, ticker) == 0)
            return &header->groups[i];
    column_group *group = add_group(header);
    if (group)
        memcpy(group->ticker, ticker, strlen(ticker) + 1);
    return group;
}

/* One header line. */
static bool read_flat(price_header *out, const lines *lines, const char *path, error *error) {
    int32_t unique[COLUMN_KINDS];
    column_group *group = add_group(out);
    if (!group)
        return error_set(error, "%s: no memory", path);
    for (int kind = 0; kind < COLUMN_KINDS; ++kind)
        unique[kind] = -1;
    for (int32_t column = 0; column < lines->columns; ++column) {
        field name = lines->fields[0][column];
        column_kind kind = kind_of(name);
        if (name.length == 0 && column == 0)
            kind = COLUMN_DATE; /* an index without a name */
        if (kind == COLUMN_UNKNOWN) {
            ++out->unknown_columns;
        } else if (is_value(kind)) {
            if (!place(group, kind, column, path, error))
                return false;
        } else if (unique[kind] < 0 || (kind == COLUMN_TICKER && !field_equals(name, "name"))) {
            unique[kind] = column; /* a symbol is a better name than a name */
        } else if (kind != COLUMN_TICKER) {
            return error_set(error, "%s: line 1: columns %d and %d are both '%s'; remove one", path,
                             unique[kind] + 1, column + 1, column_name[kind]);
        }
    }
    out->lines = 1;
    out->date = unique[COLUMN_DATE];
    out->ticker = unique[COLUMN_TICKER];
    out->period = unique[COLUMN_PERIOD];
    return true;
}

/* Price names in line `prices`, tickers in line `tickers`. */
static bool read_side_by_side(price_header *out, const lines *lines, int prices, int tickers,
                              const char *path, error *error) {
    for (int32_t column = 0; column < lines->columns; ++column) {
        field name = lines->fields[tickers][column];
        column_kind kind = kind_of(lines->fields[prices][column]);
        char ticker[TICKER_NAME_SIZE];
        if (column == out->date)
            continue;
        if (!is_value(kind)) {
            ++out->unknown_columns;
            continue;
        }
        if (name.length < 1 || name.length >= TICKER_NAME_SIZE)
            return error_set(error, "%s: line %d, column %d: a ticker of 1 to %d bytes is expected",
                             path, tickers + 1, column + 1, TICKER_NAME_SIZE - 1);
        memcpy(ticker, name.text, (size_t)name.length);
        ticker[name.length] = '\0';
        column_group *group = find_group(out, ticker);
        if (!group)
            return error_set(error, "%s: no memory", path);
        if (!place(group, kind, column, path, error))
            return false;
    }
    return true;
}

static bool only_first_filled(const lines *lines, int line) {
    for (int32_t column = 1; column < lines->columns; ++column)
        if (lines->fields[line][column].length > 0)
            return false;
    return lines->fields[line][0].length > 0;
}

/* Several header lines, as yfinance writes them; sets *is when these are such. */
static bool read_levels(price_header *out, const lines *lines, bool *is, const char *path,
                        error *error) {
    *is = false;
    if (!lines->fields[1] || lines->columns < 2)
        return true;
    if (lines->fields[2] && only_first_filled(lines, 2) &&
        kind_of(lines->fields[2][0]) == COLUMN_DATE) {
        int prices = is_value(kind_of(lines->fields[0][1])) ? 0 : 1;
        *is = true;
        out->lines = 3;
        out->date = 0;
        return read_side_by_side(out, lines, prices, 1 - prices, path, error);
    }
    /* Without the index's line: a second line with no date, and tickers where prices belong. */
    int32_t names = 0, values = 0;
    for (int32_t column = 0; column < lines->columns; ++column) {
        double number;
        column_kind kind = kind_of(lines->fields[0][column]);
        field below = lines->fields[1][column];
        if (kind == COLUMN_DATE && below.length == 0)
            out->date = column;
        if (is_value(kind)) {
            ++values;
            names += field_number(&number, below, out->delimiter) == FIELD_BAD;
        }
    }
    *is = out->date >= 0 && values > 0 && names == values;
    if (!*is)
        return true;
    out->lines = 2;
    return read_side_by_side(out, lines, 0, 1, path, error);
}

static bool check_columns(price_header *header, const lines *lines, const char *path,
                          error *error) {
    char first[FIELD_SHOWN_SIZE];
    field line = {lines->fields[0][0].text, (int32_t)(lines->fields[0][lines->columns - 1].text +
                                                      lines->fields[0][lines->columns - 1].length -
                                                      lines->fields[0][0].text)};
    field_show(first, line);
    if (header->date < 0)
        return error_set(error,
                         "%s: line 1: no column is named date; the line is '%s'. A header like "
                         "date,open,high,low,close,adj_close,volume is needed",
                         path, first);
    header->adjusted = true;
    for (int32_t i = 0; i < header->group_count; ++i)
        header->adjusted &= header->groups[i].at[COLUMN_ADJ_CLOSE] >= 0;
    for (int32_t i = 0; i < header->group_count; ++i) {
        const column_group *group = &header->groups[i];
        const char *missing = group->at[COLUMN_VOLUME] < 0 ? "volume" : NULL;
        if (group->at[header->adjusted ? COLUMN_ADJ_CLOSE : COLUMN_CLOSE] < 0)
            missing = "close";
        if (missing)
            return error_set(error, "%s: line 1: no column is named %s%s%s; the line is '%s'", path,
                             missing, *group->ticker ? " for " : "", group->ticker, first);
    }
    if (header->group_count == 0)
        return error_set(error, "%s: line 1: no prices; the line is '%s'", path, first);
    return true;
}

bool price_header_read(price_header *out, const char *path, const char *text, const char *end,
                       const char **rows, error *error) {
    *out = (price_header){.date = -1, .ticker = -1, .period = -1};
    lines lines = {.columns = 0};
    bool levels = false;
    bool ok = lines_split(&lines, out, path, text, end, error) &&
              read_levels(out, &lines, &levels, path, error) &&
              (levels || read_flat(out, &lines, path, error)) &&
              check_columns(out, &lines, path, error);
    if (ok) {
        out->columns = lines.columns;
        *rows = lines.end[out->lines - 1];
    } else {
        price_header_free(out);
    }
    lines_free(&lines);
    return ok;
}

void price_header_free(price_header *header) {
    free(header->groups);
    *header = (price_header){0};
}
