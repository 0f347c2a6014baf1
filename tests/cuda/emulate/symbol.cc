/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * A kernel's name from its address, template arguments and all, for messages: the symbol tables of the loaded programs
 * know static functions too, which dladdr does not. */
#include "runtime.h"

#include <cxxabi.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace emulate_cuda
{

struct Sought {
    uintptr_t address;
    std::string name;
};

static void search(const char *image, size_t size, uintptr_t offset, Sought *sought)
{
    const auto *header = reinterpret_cast<const ElfW(Ehdr) *>(image);
    if (size < sizeof *header || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
        header->e_shoff + (size_t)header->e_shnum * sizeof(ElfW(Shdr)) > size) {
        return;
    }
    const auto *sections = reinterpret_cast<const ElfW(Shdr) *>(image + header->e_shoff);
    for (int i = 0; i < header->e_shnum; i++) {
        const ElfW(Shdr) &table = sections[i];
        if (table.sh_type != SHT_SYMTAB || table.sh_offset + table.sh_size > size) {
            continue;
        }
        const char *names = image + sections[table.sh_link].sh_offset;
        const auto *symbol = reinterpret_cast<const ElfW(Sym) *>(image + table.sh_offset);
        for (size_t n = table.sh_size / sizeof *symbol; n > 0; n--, symbol++) {
            if ((symbol->st_info & 15) == STT_FUNC && symbol->st_value == offset) {
                sought->name = names + symbol->st_name;
            }
        }
    }
}

static int look(dl_phdr_info *info, size_t, void *p)
{
    auto *sought = static_cast<Sought *>(p);
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) &part = info->dlpi_phdr[i];
        const uintptr_t start = info->dlpi_addr + part.p_vaddr;
        if (part.p_type != PT_LOAD || sought->address < start || sought->address >= start + part.p_memsz) {
            continue;
        }
        const int file = open(info->dlpi_name[0] != 0 ? info->dlpi_name : "/proc/self/exe", O_RDONLY | O_CLOEXEC);
        struct stat status;
        if (file >= 0 && fstat(file, &status) == 0) {
            void *image = mmap(nullptr, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
            if (image != MAP_FAILED) {
                search(static_cast<const char *>(image), (size_t)status.st_size, sought->address - info->dlpi_addr,
                       sought);
                munmap(image, (size_t)status.st_size);
            }
        }
        if (file >= 0) {
            close(file);
        }
        return 1;
    }
    return 0;
}

std::string name_of(const void *function)
{
    Sought sought = {reinterpret_cast<uintptr_t>(function), ""};
    dl_iterate_phdr(look, &sought);
    int status;
    char *plain = abi::__cxa_demangle(sought.name.c_str(), nullptr, nullptr, &status);
    if (status != 0 || plain == nullptr) {
        return sought.name.empty() ? "a kernel" : sought.name;
    }
    std::string name(plain);
    free(plain);
    if (name.compare(0, 5, "void ") == 0) {
        name.erase(0, 5);
    }
    size_t end = 0; /* of the name, before the list of its parameters */
    for (int depth = 0; end < name.size() && (name[end] != '(' || depth > 0 || end == 0 || name[end + 1] == 'a');
         end++) {
        depth += name[end] == '<' ? 1 : name[end] == '>' ? -1 : 0;
    }
    return name.substr(0, end);
}

} // namespace emulate_cuda
