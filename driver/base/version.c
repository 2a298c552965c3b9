#include "base/version.h"

const char program_version[] = RP_VERSION;
const char program_revision[] = RP_REVISION;
