import random
import numpy as np
from ptwalk import fuzz

ex = fuzz.Executor("6.18", setup="shmem-16")                   # 16 pages of shared shmem, registered wp
seen = np.zeros(len(ex.branches), dtype=bool)                  # † names of the coverage map, in its order
rng, corpus = random.Random(1), [bytes(64)]                    # any byte string is a program
for _ in range(100_000):
    data = bytearray(rng.choice(corpus))
    data[rng.randrange(len(data))] = rng.randrange(256)
    r = ex.run(bytes(data))                                    # state restored before each run
    new = (r.coverage > 0) & ~seen
    if new.any():
        seen |= new
        corpus.append(bytes(data))
    if r.violations:                                           # † invariants that failed, by name
        print(r.violations, fuzz.to_text(fuzz.minimise(ex, bytes(data))), sep="\n")
again = fuzz.Executor("6.18", setup="shmem-16", kernel="scalar")
assert [ex.run(p).digest for p in corpus] == [again.run(p).digest for p in corpus]
print(f"{seen.sum()} of {seen.size} branches, corpus {len(corpus)}, digest of nothing {ex.run(b'').digest:#018x}")
