/* The head that every result file shares: schema, command, commit, date and machine, so that a
 * published figure says where it came from. */
#ifndef BASE_RESULT_H
#define BASE_RESULT_H

#include "rp/rp.h"

#include "base/json.h"

/* Opens the file's object and writes the head into it; json_end closes it. `machine` NULL: nothing
 * in the file was computed by libtorch or on a GPU. Of absolute paths in argv the last part is
 * shown. */
void result_begin(json *json, int argc, char **argv, const rp_machine *machine);

#endif
