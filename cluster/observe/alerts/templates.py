"""Templates of Prometheus that alerts put into their texts: the alert's value, and its labels."""

RUN = "run {{ $labels.run }}"
ROLE = "{{ $labels.role }}"
PLAYER = "{{ $labels.player }}"
WORKER = "{{ $labels.worker }}"
NODE = "{{ $labels.instance }}"
CAUSE = "{{ $labels.cause }}"
COUNT = '{{ printf "%.0f" $value }}'
NUMBER = '{{ printf "%.2f" $value }}'
SHARE = "{{ $value | humanizePercentage }}"
BYTES = "{{ $value | humanize1024 }}B"
SECONDS = "{{ $value | humanizeDuration }}"
