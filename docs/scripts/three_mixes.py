import itertools, time
import pandas as pd, ptwalk
from ptwalk import workload

rows = []
for (mix, tables), threads in itertools.product([("untouched", 1), ("marker", 1), ("70/15/10/5", 1 / 128)], [1, 2]):
    w = workload.build(mix, length=16 << 40, tables=tables, profile="6.18", seed=1)
    for protect in (True, False):
        t0 = time.perf_counter_ns()
        r = w.uffd.writeprotect(w.start, w.length, protect=protect, threads=threads)
        ns = time.perf_counter_ns() - t0
        rows.append({"mix": mix, "threads": threads, "protect": protect, "ms": ns / 1e6,
                     "pages": r.pages, "tables_allocated": r.tables_allocated,
                     "tables_modelled": w.mm.stats.tables_modelled, "tables_resident": w.mm.stats.tables_resident})
print(pd.DataFrame(rows).to_string(index=False))
