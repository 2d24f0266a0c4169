// Programs as text; that the text reads back is tested in Python, which has the reader.
#include <doctest/doctest.h>

#include "ptwalk/fuzz/setups.hpp"
#include "ptwalk/fuzz/text.hpp"

using namespace ptwalk;
using namespace ptwalk::fuzz;

TEST_CASE("a program in words, one line an operation") {
  CHECK(to_text(encode(find_setup("boundary")->ops)) ==
        "mmap 0x00007f00001f8000 64K rw- shared shmem 0\n"
        "userfaultfd - -\n"
        "register 0x00007f00001f8000 64K wp");
  CHECK(to_text(std::span<const u8>{}).empty());
}

TEST_CASE("what is clamped or taken modulo is written as it is taken") {
  const std::size_t rows = operations().size();
  const auto row = [](std::string_view name) {
    u8 i = 0;
    while (operations()[i].name != name) ++i;
    return i;
  };
  CHECK(to_text(Op{row("copy"), 0x28, 0, 192, 3, 0, 0}) ==
        "copy 0x00007f0000000000 4M dontwake|wp uffd=2");
  CHECK(to_text(Op{row("access"), 0x21, 1, 0, 3, 0, 7}) ==
        "access 0x00007f0000001000 write 7 mm=1");
  CHECK(to_text(Op{row("mmap"), 0, 0, 192, 0, 3, 8}) == "mmap 0x00007f0000000000 1G --- - file2 3");
  CHECK(to_text(Op{row("copy"), 0x2b}) == "copy 0x00007f0000000000 0 - odd=at|length uffd=2");
  CHECK(to_text(Op{row("access"), 0xf1}) == "access 0x00007f0000000000 read 0 odd=at mm=1");
  CHECK(to_text(Op{u8(row("fork") + rows), 0, 9, 9, 9, 9, 9}) == "fork");
}
