/*
 * footprint.c - what `footprint` runs a proxy with: a plugin of qemu-user that counts, for each basic block, how often it
 * ran and how many cache lines it missed, of its own code and of data. The caches are simulated, and are those of a usual
 * core. Every system call but the reading of a clock empties the first level: the kernel's way through TCP is longer than it.
 *
 * The functions declared here are those of version 1 of qemu's plugin interface.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef uint64_t plugin_id;

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, void (*)(unsigned, uint32_t, uint64_t, void *), int, int, void *);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, void (*)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t,
							       uint64_t, uint64_t, uint64_t, uint64_t));
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);

enum { LINE = 6, WAYS = 8, READ_AND_WRITE = 3 };

struct cache {
	unsigned sets;
	uint64_t line[8192], used[8192];
};

static struct cache code = {.sets = 64}, data = {.sets = 64}, second = {.sets = 1024}; /* 32 KiB each, 512 KiB */
static uint64_t now;

static int miss(struct cache *c, uint64_t line)
{
	unsigned first = line % c->sets * WAYS, oldest = first;
	now++;
	for (unsigned i = first; i < first + WAYS; i++) {
		if (c->line[i] == line) {
			c->used[i] = now;
			return 0;
		}
		if (c->used[i] < c->used[oldest])
			oldest = i;
	}
	c->line[oldest] = line;
	c->used[oldest] = now;
	return 1;
}

struct block {
	uint64_t start, end, instructions, runs, code, data, second;
	struct block *next;
};

static struct block *blocks;

static void ran(unsigned cpu, void *p)
{
	struct block *b = p;
	(void)cpu;
	b->runs++;
	for (uint64_t line = b->start >> LINE; line <= (b->end - 1) >> LINE; line++)
		if (miss(&code, line)) {
			b->code++;
			b->second += miss(&second, line);
		}
}

static void touched(unsigned cpu, uint32_t how, uint64_t address, void *p)
{
	struct block *b = p;
	(void)cpu;
	(void)how;
	if (miss(&data, address >> LINE)) {
		b->data++;
		b->second += miss(&second, address >> LINE);
	}
}

static void called(plugin_id id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
		   uint64_t g, uint64_t h)
{
	(void)id, (void)cpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
	if (number == SYS_clock_gettime) /* qemu has no vDSO */
		return;
	memset(code.line, 0, sizeof code.line);
	memset(data.line, 0, sizeof data.line);
}

static void translated(plugin_id id, struct qemu_plugin_tb *tb)
{
	size_t n = qemu_plugin_tb_n_insns(tb);
	struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, n - 1);
	struct block *b = calloc(1, sizeof *b);
	(void)id;
	if (b == NULL)
		abort();
	b->start = qemu_plugin_tb_vaddr(tb);
	b->end = qemu_plugin_insn_vaddr(last) + qemu_plugin_insn_size(last);
	b->instructions = n;
	do
		b->next = blocks;
	while (!__sync_bool_compare_and_swap(&blocks, b->next, b));
	qemu_plugin_register_vcpu_tb_exec_cb(tb, ran, 0, b);
	for (size_t i = 0; i < n; i++)
		qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i), touched, 0, READ_AND_WRITE, b);
}

/* One line for each block: where it begins, how often it ran, its instructions, and lines missed: code, data, second level. */
static void finished(plugin_id id, void *p)
{
	FILE *f = fopen(getenv("FOOTPRINT"), "w");
	(void)id, (void)p;
	if (f == NULL)
		abort();
	for (struct block *b = blocks; b != NULL; b = b->next)
		fprintf(f, "%lu %lu %lu %lu %lu %lu\n", b->start, b->runs, b->instructions, b->code, b->data, b->second);
	fclose(f);
}

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
	(void)info, (void)argc, (void)argv;
	qemu_plugin_register_vcpu_syscall_cb(id, called);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, finished, NULL);
	return 0;
}
