# Turns the runs into medians: a table for people on standard output, summary.tsv for programs, and the .dat files that
# pictures.gp draws. Reads workloads.tsv, goals.tsv, failures.tsv, runs.tsv and waits.tsv, in this order.

BEGIN {
        columns = "runs ns_per_op spread_percent ops_per_s p50_ns p99_ns p999_ns longest_ns fairness cpu_ns_per_op " \
                "voluntary_per_1000 involuntary_per_1000 switches_per_1000 foreign p99_over_p50 " \
                "times_reference cpu_over_reference times_waiting times_any remarks measures"
        column_count = split(columns, column, " ")
}

# Append a sample to the list called `list`.
function add(list, value) {
        sample[list, ++samples[list]] = value
}

# Sort the samples of a list in place.
function sorted(list,    i, k, value) {
        for (i = 2; i <= samples[list]; i++) {
                value = sample[list, i]
                for (k = i - 1; k > 0 && sample[list, k] > value; k--)
                        sample[list, k + 1] = sample[list, k]
                sample[list, k + 1] = value
        }
}

function median(list,    n) {
        n = samples[list]
        sorted(list)
        return n % 2 ? sample[list, (n + 1) / 2] : (sample[list, n / 2] + sample[list, n / 2 + 1]) / 2
}

function most(list) {
        sorted(list)
        return sample[list, samples[list]]
}

function spread_percent(list,    middle) {
        middle = median(list)
        return middle > 0 ? 100 * (sample[list, samples[list]] - sample[list, 1]) / middle : 0
}

# A duration with three digits and its unit.
function duration(ns) {
        if (ns < 1e3) return sprintf(ns < 100 ? "%.3g ns" : "%.0f ns", ns)
        if (ns < 1e6) return sprintf("%.3g us", ns / 1e3)
        if (ns < 1e9) return sprintf("%.3g ms", ns / 1e6)
        return sprintf("%.3g s", ns / 1e9)
}

function rate(per_s) {
        if (per_s >= 1e6) return sprintf("%.4g M", per_s / 1e6)
        if (per_s >= 1e3) return sprintf("%.4g k", per_s / 1e3)
        return sprintf("%.4g", per_s)
}

/^#/ || /^$/ { next }

FILENAME ~ /workloads\.tsv$/ {
        say[$1] = $3
        next
}

FILENAME ~ /goals\.tsv$/ && $1 == "reference" {
        reference = $2
        next
}

FILENAME ~ /goals\.tsv$/ {
        goal[++goals] = $1; goal_measure[goals] = $2; goal_relation[goals] = $3; goal_value[goals] = $4
        next
}

FILENAME ~ /failures\.tsv$/ {
        if ($1 == "none") absent[$3] = absent[$3] (index(absent[$3], $2 ":") ? "" : "  " $2 ": " $4 "\n")
        else failure[++failures] = "FAILED  " $2 " on " $3 ", repetition " $1 ": " $4
        next
}

FNR == 1 { next }

FILENAME ~ /runs\.tsv$/ {
        key = $3 SUBSEP $2
        leases = $4 > 0 ? $4 : 1
        if (!(key in known)) {
                known[key] = 1
                if (!($3 in rivals)) workload[++workloads] = $3
                rival[$3, ++rivals[$3]] = $2
                remark[key] = $16
        }
        if ($16 ~ /DOUBLE-USE|not-real-time/) remark[key] = $16
        add(key "ops_per_s", $4 * 1e9 / $5)
        add(key "p50_ns", $6); add(key "p99_ns", $7); add(key "p999_ns", $8); add(key "longest_ns", $9)
        add(key "fairness", $11 > 0 ? $10 / $11 : 0)
        add(key "cpu_ns_per_op", $12 / leases)
        add(key "voluntary_per_1000", 1000 * $13 / leases)
        add(key "involuntary_per_1000", 1000 * $14 / leases)
        add(key "switches_per_1000", 1000 * ($13 + $14) / leases)
        add(key "foreign", $15)
        for (i = split($17, pairs, ","); i > 0; i--)
                if (split(pairs[i], pair, "=") == 2) {
                        if (!((key pair[1]) in samples)) measures[key] = measures[key] " " pair[1]
                        add(key pair[1], pair[2])
                }
        add(key "p99_over_p50", $6 > 0 ? $7 / $6 : 0)
        next
}

FILENAME ~ /waits\.tsv$/ {
        list = "wait" SUBSEP $3 SUBSEP $2 SUBSEP $4
        if (!(list in samples)) quantile[$3, $2, ++quantiles[$3, $2]] = $4
        add(list, $5)
}

# Medians of one rival on one workload.
function settle(key,    i, name, names) {
        for (i = 1; i <= column_count; i++) {
                name = column[i]
                if ((key name) in samples)
                        value[key, name] = median(key name)
        }
        value[key, "runs"] = samples[key "ops_per_s"]
        value[key, "spread_percent"] = spread_percent(key "ops_per_s")
        value[key, "ns_per_op"] = value[key, "ops_per_s"] > 0 ? 1e9 / value[key, "ops_per_s"] : 0
        value[key, "remarks"] = remark[key]
        for (i = split(measures[key], names, " "); i > 0; i--) {
                value[key, names[i]] = names[i] == "early" ? most(key names[i]) : median(key names[i])
                value[key, "measures"] = names[i] "=" sprintf("%.6g", value[key, names[i]]) \
                        (value[key, "measures"] == "" ? "" : ",") value[key, "measures"]
        }
}

# Throughput of every pool over the reference's and over the best of the others.
function compare(load,    i, name, key, ops, waiting, any, base) {
        base = load SUBSEP reference
        for (i = 1; i <= rivals[load]; i++) {
                name = rival[load, i]
                ops = value[load SUBSEP name, "ops_per_s"]
                if (name ~ /^lido/) continue
                if (ops > any) any = ops
                if (ops > waiting && remark[load SUBSEP name] !~ /polls/) waiting = ops
        }
        for (i = 1; i <= rivals[load]; i++) {
                key = load SUBSEP rival[load, i]
                ops = value[key, "ops_per_s"]
                value[key, "times_reference"] = value[base, "ops_per_s"] > 0 ? ops / value[base, "ops_per_s"] : "-"
                value[key, "cpu_over_reference"] = value[base, "cpu_ns_per_op"] > 0 ? \
                        value[key, "cpu_ns_per_op"] / value[base, "cpu_ns_per_op"] : "-"
                value[key, "times_waiting"] = waiting > 0 ? ops / waiting : "-"
                value[key, "times_any"] = any > 0 ? ops / any : "-"
        }
}

# The rivals of a workload in order[1..], fastest first.
function rank(load,    i, k, name) {
        for (i = 1; i <= rivals[load]; i++) {
                name = rival[load, i]
                for (k = i - 1; k > 0 && value[load SUBSEP order[k], "ops_per_s"] < value[load SUBSEP name, "ops_per_s"]; k--)
                        order[k + 1] = order[k]
                order[k + 1] = name
        }
}

function print_workload(load,    i, key, notes) {
        printf "\n%s  %s\n", load, say[load]
        printf "  %-14s %9s %7s %8s %9s %9s %9s %9s %9s %8s %10s %9s %9s\n", "", "ns/op", "spread", "ops/s", substr(reference, 1, 9), \
                "p50", "p99", "p99.9", "longest", "fairness", "CPU/op", "vol/1000", "inv/1000"
        for (i = 1; i <= rivals[load]; i++) {
                key = load SUBSEP order[i]
                notes = remark[key] == "ok" ? "" : " " remark[key]
                sub(/^ ok,/, " ", notes)
                if (value[key, "foreign"] > 0.1) notes = notes sprintf(" disturbed:%.0f%%", 100 * value[key, "foreign"])
                if (value[key, "measures"] != "") notes = notes " " value[key, "measures"]
                printf "%s %-14s %9.4g %6.0f%% %8s %8sx %9s %9s %9s %9s %8.3f %10s %9.4g %9.4g%s\n", \
                        order[i] == "lido" ? ">" : " ", order[i], value[key, "ns_per_op"], value[key, "spread_percent"], \
                        rate(value[key, "ops_per_s"]), \
                        value[key, "times_reference"] == "-" ? "-" : sprintf("%.2f", value[key, "times_reference"]), \
                        duration(value[key, "p50_ns"]), duration(value[key, "p99_ns"]), duration(value[key, "p999_ns"]), \
                        duration(value[key, "longest_ns"]), value[key, "fairness"], duration(value[key, "cpu_ns_per_op"]), \
                        value[key, "voluntary_per_1000"], value[key, "involuntary_per_1000"], notes
        }
        printf "%s", absent[load]
}

function write_summary(load,    i, k, key, line) {
        for (i = 1; i <= rivals[load]; i++) {
                key = load SUBSEP order[i]
                line = load "\t" order[i]
                for (k = 1; k <= column_count; k++)
                        line = line "\t" (value[key, column[k]] == "" ? "-" : value[key, column[k]])
                print line >summary
                printf("%s\t%.6g\t%.6g\t%d\n", order[i], value[key, "ops_per_s"], value[key, "fairness"], \
                        order[i] == "lido") >(distributions "/bars-" load ".dat")
        }
        close(distributions "/bars-" load ".dat")
}

# The waits of a workload, one block a rival, for gnuplot: the share of acquires that waited longer, how long, and a number
# that stands for the rival in every picture, 1 for ours.
function write_waits(load,    i, k, path, name, share) {
        path = distributions "/waits-" load ".dat"
        for (i = 1; i <= rivals[load]; i++) {
                name = order[i]
                if (!(name in line_type)) line_type[name] = name == "lido" ? 1 : ++line_types + 1
                printf("%s\"%s\"\n", i > 1 ? "\n\n" : "", name) >path
                for (k = 1; k <= quantiles[load, name]; k++) {
                        share = 1 - quantile[load, name, k]
                        if (share < 1e-9) continue
                        printf("%.9g\t%.9g\t%d\n", share, median("wait" SUBSEP load SUBSEP name SUBSEP quantile[load, name, k]), \
                                line_type[name]) >path
                }
        }
        close(path)
}

function print_goals(    i, key, got, is_met, met, judged) {
        for (i = 1; i <= goals; i++) {
                key = goal[i] SUBSEP "lido"
                got = value[key, goal_measure[i]]
                if (got == "" || got == "-") continue
                if (!judged++) print "\nlido against its goals (" set "/goals.tsv)"
                is_met = goal_relation[i] == "<=" ? got + 0 <= goal_value[i] + 0 : got + 0 >= goal_value[i] + 0
                met += is_met
                printf "  %s  %-18s %10.4g  %s %-9g %s\n", goal[i], goal_measure[i], got, goal_relation[i], goal_value[i], \
                        is_met ? "met" : "MISSED"
        }
        if (judged) printf "  %d of %d met\n", met, judged
}

END {
        line = "workload\trival"
        for (i = 1; i <= column_count; i++) line = line "\t" column[i]
        print line >summary
        for (w = 1; w <= workloads; w++) {
                for (i = 1; i <= rivals[workload[w]]; i++) settle(workload[w] SUBSEP rival[workload[w], i])
                compare(workload[w])
                rank(workload[w])
                print_workload(workload[w])
                write_summary(workload[w])
                write_waits(workload[w])
        }
        print_goals()
        if (failures) print ""
        for (i = 1; i <= failures; i++) print failure[i]
        print "\nMedians over the repetitions; spread is highest less lowest over the median. Compare inside one run only."
        if (set == "pools")
                print "\"polls\" marks a pool that cannot wait: its borrowers call it again and again, yielding the core."
}
