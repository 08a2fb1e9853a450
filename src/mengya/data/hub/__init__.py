"""Public data sets by name: a registry of them, and how their files come from the hubs, or a part of them.

Why not `datasets` in streaming mode: it infers types from the first rows and dies at the first record that
differs, and its errors name no line. Here files arrive as they are and our own readers report every bad line;
a limit reads only the blocks of a file that it needs. Whole files come by the hub's own client, which resumes.
"""
