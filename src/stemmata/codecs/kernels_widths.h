/* The loops for every width, their names ending as SUFFIXED says. Included by kernels.c. */

#define W uint8_t
#define BITS 8
#define NARROW uint8_t
#define SUB 3
#define SUFFIX SUFFIXED(8)
#include "kernels_width.h"
#undef W
#undef BITS
#undef NARROW
#undef SUB
#undef SUFFIX

#define W uint16_t
#define BITS 16
#define NARROW uint8_t
#define SUB 3
#define SUFFIX SUFFIXED(16)
#include "kernels_width.h"
#undef W
#undef BITS
#undef NARROW
#undef SUB
#undef SUFFIX

#define W uint32_t
#define BITS 32
#define NARROW uint8_t
#define SUB 3
#define SUFFIX SUFFIXED(32)
#include "kernels_width.h"
#undef W
#undef BITS
#undef NARROW
#undef SUB
#undef SUFFIX

#define W uint64_t
#define BITS 64
#define NARROW uint16_t
#define SUB 2
#define SUFFIX SUFFIXED(64)
#include "kernels_width.h"
#undef W
#undef BITS
#undef NARROW
#undef SUB
#undef SUFFIX
