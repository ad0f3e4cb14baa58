# Draws what report.awk wrote: throughput, fairness and the distribution of waits, a small picture for each workload.
# Called with out='FOLDER'; loads='W1 W2 ...'. Our pool is in colour, the others are grey.

ours = "#0b7a75"
others = "#b8b8b8"
rows(n) = (n + 1) / 2

set terminal pngcairo size 1400, 420 * rows(words(loads)) font "sans,11" noenhanced
set style fill solid
set boxwidth 0.7
set xtics rotate by -35 nomirror
set border 3
set grid ytics lc rgb "#e4e4e4"
set lmargin 10
unset key

# Bars: column 2 is throughput, column 3 fairness, column 4 whether it is ours.
set output out."/throughput.png"
set multiplot layout rows(words(loads)), 2 title "leases per second"
set ytics nomirror
set format y "%.1s%c"
set yrange [0:*]
do for [load in loads] {
        set title load
        plot out."/bars-".load.".dat" using 0:2:($4 > 0 ? 0x0b7a75 : 0xb8b8b8):xtic(1) with boxes lc rgb variable
}
unset multiplot

set output out."/fairness.png"
set multiplot layout rows(words(loads)), 2 title "leases of the least busy thread over those of the busiest"
set format y "%g"
set yrange [0:1]
do for [load in loads] {
        set title load
        plot out."/bars-".load.".dat" using 0:3:($4 > 0 ? 0x0b7a75 : 0xb8b8b8):xtic(1) with boxes lc rgb variable
}
unset multiplot

# Waits: the share of acquires that waited longer than the time on the other axis.
set output out."/waits.png"
set multiplot layout rows(words(loads)), 2 title "share of acquires (across) that waited longer than (up)"
set key left top font "sans,9"
set logscale xy
set xrange [1:1e-6] reverse
set xtics norotate
set format x "%g"
set yrange [10:*]
set ytics ("10 ns" 10, "100 ns" 100, "1 us" 1e3, "10 us" 1e4, "100 us" 1e5, "1 ms" 1e6, "10 ms" 1e7, "100 ms" 1e8, "1 s" 1e9)
do for [load in loads] {
        set title load
        file = out."/waits-".load.".dat"
        stats file using 1:2 nooutput
        plot for [i = 0:STATS_blocks - 1] file index i using 1:2 with lines lw 2 title columnheader(1)
}
unset multiplot
