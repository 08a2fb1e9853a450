"""Public data sets by name: a registry of them, and how their files come from the hubs, or a part of them.

Why not `datasets` in streaming mode: it infers types from the first rows and dies at the first record that
differs, and its errors name no line. Here files arrive as they are and our readers report every bad line;
a limit asks for those blocks of a file only that it needs; and what has arrived survives being stopped.
"""
