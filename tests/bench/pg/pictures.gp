# Draws summary.tsv: statements (q4: transactions) per second, and latency: median, 99th, 99.9th percentile. Called with
# out='FOLDER'; loads='q1 q2 ...'. Ours is in colour, the others are grey.

rows(n) = (n + 1) / 2
colour(name) = name[1:4] eq "lido" ? 0x0b7a75 : 0xb8b8b8
chosen(load) = sprintf("< awk -F'\\t' -v q=%s '$2 == q && $5 != \"-\"' '%s/summary.tsv'", load, out)

set terminal pngcairo size 1400, 420 * rows(words(loads)) font "sans,11" noenhanced
set datafile separator "\t"
set style fill solid
set boxwidth 0.7
set xtics rotate by -35 nomirror
set border 3
set grid ytics lc rgb "#e4e4e4"
set lmargin 10
set xrange [-0.6:*]
set offsets 0, 0.6, 0, 0
unset key

set output out."/throughput.png"
set multiplot layout rows(words(loads)), 2 title "per second"
set ytics nomirror
set format y "%.1s%c"
set yrange [0:*]
do for [load in loads] {
        set title load
        plot chosen(load) using 0:5:(colour(strcol(1))):xtic(1) with boxes lc rgb variable
}
unset multiplot

set output out."/latency.png"
set multiplot layout rows(words(loads)), 2 title "milliseconds: median (dot), 99 % (bar), 99.9 % (tick)"
set format y "%g"
set logscale y
set yrange [*:*]
do for [load in loads] {
        set title load
        plot chosen(load) using 0:8:(colour(strcol(1))):xtic(1) with impulses lw 12 lc rgb variable, \
             "" using 0:7:(colour(strcol(1))) with points pt 7 ps 1.2 lc rgb "#303030", \
             "" using 0:9:(colour(strcol(1))) with points pt 1 ps 1.6 lc rgb variable
}
unset multiplot
