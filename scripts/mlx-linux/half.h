// The two 16-bit types of MLX's C interface, which its own half.h leaves out on x86-64. Only their size and bits
// cross the border, so a struct and an integer do; the guard keeps half.h from defining them again.
#ifndef MLX_HALF_H
#define MLX_HALF_H
#include <stdint.h>
#define HAS_FLOAT16
#define HAS_BFLOAT16
typedef struct { uint16_t bits; } float16_t;
typedef uint16_t bfloat16_t;
#endif
