/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "core/registry/validate.h"

#include <elf.h>
#include <link.h>
#include <string.h>

/* Sizes in the first version of ABI 1; fields are only ever appended. */
enum {
    FIRST_CLASS = offsetof(sluice_class, fini) + sizeof(void (*)(void *)),
    FIRST_PARAM = offsetof(sluice_param, speed_only) + sizeof(bool)
};

static bool refuse(sl_why *why, const char *text)
{
    snprintf(why->text, sizeof why->text, "%s", text);
    return false;
}

bool sl_object_whole(const uint8_t *bytes, size_t size, sl_why *why)
{
    ElfW(Ehdr) header;
    if (size < sizeof header || memcmp(bytes, ELFMAG, SELFMAG) != 0)
        return refuse(why, "not a shared object (no ELF header): copy or build it again");
    memcpy(&header, bytes, sizeof header);
    if (header.e_ident[EI_CLASS] != (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32)) {
        snprintf(why->text, sizeof why->text, "ELF class is %s-bit, here %zu-bit: build it for this machine",
                 header.e_ident[EI_CLASS] == ELFCLASS64 ? "64" : "32", sizeof(void *) * 8);
        return false;
    }
    if (header.e_type != ET_DYN)
        return refuse(why, "an ELF file, but no shared object: link it with -shared");
    if (header.e_phentsize != sizeof(ElfW(Phdr)) || header.e_phoff > size ||
        (size - header.e_phoff) / sizeof(ElfW(Phdr)) < header.e_phnum)
        return refuse(why, "truncated: its program headers lie past the end of the file; copy or build it again");
    /* The section headers come last in a file, so that every truncation shows here; a stripped one may have none. */
    if (header.e_shoff > size || (size - header.e_shoff) / sizeof(ElfW(Shdr)) < header.e_shnum)
        return refuse(why, "truncated: its section headers lie past the end of the file; copy or build it again");
    for (size_t i = 0; i < header.e_phnum; i++) {
        ElfW(Phdr) part;
        memcpy(&part, bytes + header.e_phoff + i * sizeof part, sizeof part);
        if (part.p_type == PT_LOAD && (part.p_offset > size || part.p_filesz > size - part.p_offset)) {
            snprintf(why->text, sizeof why->text,
                     "truncated: a segment ends at byte %llu, the file has %zu; copy or build it again",
                     (unsigned long long)(part.p_offset + part.p_filesz), size);
            return false;
        }
    }
    return true;
}

static bool differs(sl_why *why, const char *field, uint64_t theirs, uint64_t ours, const char *mend)
{
    snprintf(why->text, sizeof why->text, "%s is %llu in the plugin, %llu here: %s", field, (unsigned long long)theirs,
             (unsigned long long)ours, mend);
    return false;
}

bool sl_stamp_fits(const sluice_plugin *plugin, sl_why *why)
{
    static const char rebuild[] = "rebuild the plugin against this sluice's headers";
    static const char newer[] =
        "it was built for a newer sluice; rebuild it against this one's headers, or update sluice";
    if (plugin->magic != SLUICE_MAGIC) {
        snprintf(why->text, sizeof why->text,
                 "magic is %#llx in the plugin, %#llx here: make its entry with SLUICE_PLUGIN and rebuild it",
                 (unsigned long long)plugin->magic, (unsigned long long)SLUICE_MAGIC);
        return false;
    }
    const sluice_stamp *stamp = &plugin->stamp;
    if (stamp->byte_order != 0x01020304)
        return differs(why, "stamp.byte_order", stamp->byte_order, 0x01020304, "rebuild the plugin on this machine");
    if (stamp->abi != SLUICE_ABI)
        return differs(why, "stamp.abi", stamp->abi, SLUICE_ABI, stamp->abi > SLUICE_ABI ? newer : rebuild);
    /* A stamp of another size would move everything behind it. */
    if (stamp->size != sizeof *stamp)
        return differs(why, "stamp.size", stamp->size, sizeof *stamp, stamp->size > sizeof *stamp ? newer : rebuild);
    if (stamp->pointer_size != sizeof(void *))
        return differs(why, "stamp.pointer_size", stamp->pointer_size, sizeof(void *), "rebuild it for this machine");
    if (stamp->class_size > sizeof(sluice_class))
        return differs(why, "stamp.class_size", stamp->class_size, sizeof(sluice_class), newer);
    if (stamp->class_size < FIRST_CLASS)
        return differs(why, "stamp.class_size", stamp->class_size, sizeof(sluice_class), rebuild);
    if (stamp->param_size > sizeof(sluice_param))
        return differs(why, "stamp.param_size", stamp->param_size, sizeof(sluice_param), newer);
    if (stamp->param_size < FIRST_PARAM)
        return differs(why, "stamp.param_size", stamp->param_size, sizeof(sluice_param), rebuild);
    if (!plugin->id || !plugin->version || !plugin->license || !plugin->classes)
        return refuse(why,
                      "id, version, licence or classes are missing: make the entry with SLUICE_PLUGIN and rebuild");
    return true;
}
