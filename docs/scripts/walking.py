import mmap, ptwalk

mm, a = ptwalk.AddressSpace(profile="6.18"), 0x7f0000002000
mm.mmap(0x7f0000000000, 4 << 20, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, ptwalk.ShmemFile(4 << 20))
print(mm.walk(a))
mm.access(a, write=True)
print(mm.walk(a))
print(mm.walk(a + (2 << 20)))
for step in mm.walk(a):                                        # † a Walk is a sequence of its levels
    print(step.level, step.index, hex(mm.entry(a, step.level) & 0xfff))
print(hex(mm.translate([a + 0xabc])[0] & 0xfff), mm.tables().shape[1])
for profile, word in [("5.12", 0x4), ("uffd-wp-v2", 0x4), ("6.1", 0xf7fffffffffffc00), ("6.18", 0xfffffffffffffc00),
                      ("6.18", 0xfffffffffffff600), ("6.18", 0x8400000012345425),
                      ("uffd-wp-v2", 0x000fffffedcba960), ("uffd-wp-v2", 0x1fffffffffdb9604)]:
    print(f"{profile:10}", ptwalk.explain(word, profile=profile))                           # †
