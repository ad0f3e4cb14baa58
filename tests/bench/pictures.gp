# Draws what report.awk wrote: throughput, fairness and the distribution of waits, a small picture for each workload.
# Called with out='FOLDER'; loads='W1 W2 ...'. Our pool is in colour, the others are grey.

rows(n) = (n + 1) / 2

# Counted before any axis has a range, which would leave points out.
array pools[words(loads)]
do for [i = 1:words(loads)] {
        stats out."/waits-".word(loads, i).".dat" using 1:2 nooutput
        pools[i] = STATS_blocks
}

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
set key outside right top font "sans,10" noopaque
set linetype 1 lw 2 lc rgb "#0b7a75"
do for [i = 2:11] {
        set linetype i lw 2 lc rgb word("x #e07b39 #5b7fbd #b04a5a #8a6fb0 #c9a227 #6b8e4e #7a7a7a #d48fb8 #3f5f6f #a0714f", i)
}
set logscale xy
set xrange [1:1e-6] reverse
set xtics norotate
set format x "%g"
set yrange [10:*]
set ytics ("10 ns" 10, "100 ns" 100, "1 us" 1e3, "10 us" 1e4, "100 us" 1e5, "1 ms" 1e6, "10 ms" 1e7, "100 ms" 1e8, "1 s" 1e9)
do for [w = 1:words(loads)] {
        set title word(loads, w)
        file = out."/waits-".word(loads, w).".dat"
        plot for [i = 0:pools[w] - 1] file index i using 1:2:3 with lines lw 2 lc variable title columnheader(1)
}
unset multiplot
