"""The tables that a run prints."""
import statistics


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def figure(value, digits=3):
    """value with about that many significant digits."""
    if value is None:
        return "-"
    if value >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    whole = len(str(int(value)))
    return f"{value:.{digits - whole}f}"


def print_table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        print("| " + " | ".join(cells) + " |")
        if number == 0:
            print("|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|")


def lowest(rounds):
    return min((r["cpu"] for r in rounds if r), default=None)


def ratio(rounds, reference, of_best):
    """CPU of one proxy over that of another: median of the ratios within each round, or of their best rounds."""
    if of_best:
        own, other = lowest(rounds), lowest(reference)
        return own / other if own and other else None
    return median(a["cpu"] / b["cpu"] for a, b in zip(rounds, reference) if a and b and b["cpu"])


def print_workload(name, workload, results, references, of_best):
    """results: name of a proxy -> its rounds, None where one failed."""
    measured = {n: rounds for n, rounds in results.items() if any(rounds)}
    if not measured:
        return
    print(f"\n### {name}: {workload.title}\n")
    columns = ["proxy", "MiB/s", "CPU s/GiB"] if workload.bulk else ["proxy", "req/s", "CPU µs/req"]
    columns += ["best", "busy"] + ([] if workload.bulk else ["p50 ms", "p99 ms"]) + [f"÷ {r}" for r in references] + ["errors"]
    rows = []
    for proxy in sorted(measured, key=lambda n: median(r["cpu"] for r in measured[n] if r)):
        good = [r for r in measured[proxy] if r]
        of = lambda key: median(r[key] for r in good)
        row = [proxy, figure(of("rate")), figure(of("cpu")), figure(lowest(good)), f"{of('busy'):.0%}"]
        if not workload.bulk:
            row += [figure(of("p50") * 1e3), figure(of("p99") * 1e3)]
        row += [figure(ratio(measured[proxy], results.get(r, []), of_best)) for r in references]
        failed = sum(r is None for r in measured[proxy])
        rows.append(row + [str(sum(r["errors"] for r in good)) + (f" and {failed} failed rounds" if failed else "")])
    print_table([columns] + rows)


def print_crowd(title, count, figures, at_rest):
    """figures: name of a proxy -> (PSS, RSS) before and with the crowd; at_rest: the same after its start, if that was measured."""
    if not figures:
        return
    print(f"\n### {title}: MiB as PSS, RSS in brackets\n")
    cell = lambda m: "{:.1f} ({:.1f})".format(*m) if m else "-"
    rows = [["proxy"] + (["at rest"] if at_rest else []) + ["before", "with them", "KiB per caller"]]
    for proxy, (before, crowd) in sorted(figures.items(), key=lambda item: item[1][1]):
        rows.append([proxy] + ([cell(at_rest.get(proxy))] if at_rest else []) +
                    [cell(before), cell(crowd), f"{max(0, crowd[0] - before[0]) * 1024 / count:.1f}"])
    print_table(rows)
