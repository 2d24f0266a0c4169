import errno, mmap, ptwalk
GiB, PAGE, RAM = 1 << 30, 4096, 0x7f0000000000
WRITES = {"used before": RAM, "next page": RAM + PAGE, "GiB never used": RAM + 3 * GiB}

def snapshot(profile, backing, features=0):
    mm = ptwalk.AddressSpace(profile=profile)
    file = ptwalk.ShmemFile(4 * GiB) if backing == "memfd" else None
    flags = mmap.MAP_SHARED if file else mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    mm.mmap(RAM, 4 * GiB, mmap.PROT_READ | mmap.PROT_WRITE, flags, file)
    mm.access(RAM, write=True)
    uffd = mm.userfaultfd(features)
    try:
        uffd.register(RAM, 4 * GiB, "wp")
    except OSError as e:
        return errno.errorcode[e.errno]
    r, saved = uffd.writeprotect(RAM, 4 * GiB), set()          # the snapshot begins
    for name, addr in WRITES.items():                          # the vCPUs go on
        while mm.access(addr, write=True).outcome == "blocked":
            saved.add(name)                                    # copy the old page out, then let the write go on
            uffd.writeprotect(uffd.read()[0].address, PAGE, protect=False)
    return f"pages={r.pages} none_skipped={r.none_skipped} lost={[w for w in WRITES if w not in saved]}"

for args in ["5.12 memfd", "5.12 anon", "uffd-wp-v2 memfd", "6.1 memfd", "6.1 anon",
             "6.18 memfd", "6.18 anon", "6.18 anon wp_unpopulated"]:                        # feature as a string: †
    print(args, snapshot(*args.split()), sep="  ")
