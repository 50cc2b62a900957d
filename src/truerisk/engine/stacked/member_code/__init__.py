"""What a stack computes as machine code, which takes one member after another.

torch takes a stack operation by operation: each writes a tensor of all members, which the next one
reads back from beyond the core's cache. Here the operations that were recorded are written out in C
for one member, whose tensors stay near the core, and compiled; products of matrices are those of
the BLAS that torch has. Without a C compiler, or for an operation that is not known here, torch
goes on as it did.

layout
    Where the numbers of one member lie, of each tensor that was recorded.
operations
    What each of torch's operations is in C.
program
    The whole: which operations are needed, where scratch tensors lie, the source.
machine_code
    The compiler, and what it has compiled before.
compiled_function
    A function of stacked tensors that is called so.
"""
