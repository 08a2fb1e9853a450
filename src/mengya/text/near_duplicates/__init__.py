"""Near-duplicates: texts -> signatures of fixed size -> those that resemble an earlier one.

MinHash (minhash.py) estimates the Jaccard similarity of the sets of character n-grams (ngrams.py) of two
texts, SimHash (simhash.py) compares 64 bits. Both give keys that near texts are likely to share, which
index.py looks up. Nothing here knows of samples, tokens or files.
"""
