#define _POSIX_C_SOURCE 200809L
#include "base/result.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/version.h"

/* "model name" of the first processor in /proc/cpuinfo; "unknown" where there is none. */
static void find_processor(char *name, size_t size) {
    snprintf(name, size, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file) {
        return;
    }
    char line[256];
    while (fgets(line, sizeof line, file)) {
        const char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && value) {
            value += 1 + (value[1] == ' ');
            snprintf(name, size, "%.*s", (int)strcspn(value, "\n"), value);
            break;
        }
    }
    fclose(file);
}

static void write_machine(json *json, const rp_machine *machine) {
    char processor[128];
    find_processor(processor, sizeof processor);
    json_object(json, "machine");
    json_string(json, "cpu", processor);
    json_int(json, "cores", sysconf(_SC_NPROCESSORS_ONLN));
    if (machine) {
        const struct {
            const char *key, *value;
        } parts[] = {{"gpu", machine->gpu},     {"driver", machine->driver},
                     {"cuda", machine->cuda},   {"cudnn", machine->cudnn},
                     {"torch", machine->torch}, {"compiler", machine->compiler}};
        for (size_t i = 0; i < sizeof parts / sizeof *parts; ++i) {
            json_string(json, parts[i].key, parts[i].value[0] ? parts[i].value : NULL);
        }
    }
    json_end(json);
}

/* Of absolute paths, also in a list and after '=', only the last part: a file of results is shared,
 * and the folders of the machine that wrote it mean nothing elsewhere. */
static void append_argument(text *out, const char *argument) {
    while (*argument) {
        size_t length = strcspn(argument, ",=");
        size_t first = 0;
        for (size_t i = 0; argument[0] == '/' && i + 1 < length; ++i) {
            first = argument[i] == '/' ? i + 1 : first;
        }
        length += argument[length] != '\0';
        text_append(out, argument + first, length - first);
        argument += length;
    }
}

void result_begin(json *json, int argc, char **argv, const rp_machine *machine) {
    text command = {0};
    text_append_string(&command, "return-predictor");
    for (int i = 0; i < argc; ++i) {
        text_append_string(&command, " ");
        append_argument(&command, argv[i]);
    }
    char date[32] = "";
    const time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc)) {
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    }
    json_object(json, NULL);
    json_int(json, "schema", 1);
    json_string(json, "command", text_ok(&command) ? command.data : NULL);
    json_string(json, "commit", program_revision);
    json_string(json, "date", date);
    write_machine(json, machine);
    text_free(&command);
}
