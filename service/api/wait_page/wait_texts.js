// The texts of the page of a waiting user, by language. A language has every entry of the others.

/** Return a range of seconds in words; `words` are those of the language. */
function rangeInWords({ min, max }, words) {
  if (max <= 10) return words.seconds;
  if (max <= 60) return words.lessThanAMinute;
  const [seconds, unit] = max <= 5400 ? [60, words.minutes] : [3600, words.hours];
  const [low, high] = [Math.floor(min / seconds), Math.ceil(max / seconds)];
  if (low === 0) return words.upTo(high, unit);
  return high - low <= 1 ? words.about(high, unit) : words.between(low, high, unit);
}

const plural = (number, one, many) => (number === 1 ? one : many);

const english = {
  name: "English",
  title: "Your request",
  loading: ["One moment", "Your request is being looked up."],
  inLine: "You are in line",
  turn: ["It is your turn", "Your request is being decided."],
  ahead: (number) => plural(number, "request is ahead of you", "requests are ahead of you"),
  aheadInWords: (number, formatted) =>
    `${formatted} ${plural(number, "request is ahead of you", "requests are ahead of you")}.`,
  progress: "Your way to the front of the line",
  aheadUnknown: "Your place is safe. How many requests are ahead of you is not known at the moment.",
  wait: (range) =>
    rangeInWords(range, {
      seconds: "It takes a few seconds.",
      lessThanAMinute: "It takes less than a minute.",
      minutes: (number) => plural(number, "minute", "minutes"),
      hours: (number) => plural(number, "hour", "hours"),
      upTo: (high, unit) => `It takes up to ${high} ${unit(high)}.`,
      about: (number, unit) => `It takes about ${number} ${unit(number)}.`,
      between: (low, high, unit) => `It takes about ${low} to ${high} ${unit(high)}.`,
    }),
  waitUnknown: "How long it takes is not known yet.",
  unlikely: "There are probably not enough coupons left for you. Your place in line still counts.",
  note: "You can close this page. Your place in line stays the same.",
  retrying: ["Your request is being tried again", "There was a technical problem. A coupon is being held for you."],
  standby: ["You are on standby", "If a coupon becomes free, it goes to the first on standby."],
  issued: ["You got the coupon", (sequence) => `Yours is number ${sequence}.`],
  ended: {
    sold_out: ["Sold out", "All coupons went to requests that came before yours."],
    duplicate: ["You have requested this coupon before", "Your earlier request counts."],
    closed: ["This offer has ended", "It was closed before your request was decided."],
    paused: ["This offer is paused", "Please try again later."],
    not_open: ["This offer has not opened yet", "Please request the coupon again after the opening."],
    unknown_coupon: ["There is no such coupon", "Please go back to the shop and choose another one."],
    exhausted: ["Your request could not be completed", "There was a technical problem. Please contact the shop."],
    poison: ["Your request could not be completed", "There was a technical problem. Please contact the shop."],
    lost: ["Your request was lost", "A technical problem deleted it before it was decided. Please contact the shop."],
  },
  endedOtherwise: ["You did not get the coupon", (code) => `The shop can tell you more. The reason is: ${code}.`],
  unknown: ["This request was not accepted", "Please go back to the shop and request the coupon again."],
  absent: ["This request is not known", "The address may be incomplete, or the request belongs to somebody else."],
  unauthorized: [
    "Please open this page from the shop again",
    "Your permission to see the request has ended. Your place in line stays the same.",
  ],
  connection: {
    connecting: "Connecting",
    live: "Live",
    reconnecting: "Connection lost, trying again",
    polling: "Updated every few seconds",
    paused: "Paused while the page is hidden",
    closed: "Final result",
    stopped: "Not connected",
  },
  requested: "Requested",
  request: "Request",
};

const korean = {
  name: "한국어",
  title: "쿠폰 신청 현황",
  loading: ["잠시만 기다려 주세요", "신청 내역을 확인하고 있습니다."],
  inLine: "순서를 기다리고 있습니다",
  turn: ["곧 결과가 나옵니다", "지금 고객님의 신청을 처리하고 있습니다."],
  ahead: () => "건의 신청이 앞에 있습니다",
  aheadInWords: (_, formatted) => `앞에 ${formatted}건의 신청이 있습니다.`,
  progress: "대기 진행 상황",
  aheadUnknown: "순서는 확보되어 있습니다. 앞에 몇 건이 있는지는 지금 확인할 수 없습니다.",
  wait: (range) =>
    rangeInWords(range, {
      seconds: "몇 초 안에 결과가 나옵니다.",
      lessThanAMinute: "1분 안에 결과가 나옵니다.",
      minutes: () => "분",
      hours: () => "시간",
      upTo: (high, unit) => `예상 대기 시간은 최대 ${high}${unit()}입니다.`,
      about: (number, unit) => `예상 대기 시간은 약 ${number}${unit()}입니다.`,
      between: (low, high, unit) => `예상 대기 시간은 약 ${low}~${high}${unit()}입니다.`,
    }),
  waitUnknown: "예상 대기 시간은 아직 알 수 없습니다.",
  unlikely: "남은 쿠폰이 부족해 받지 못하실 가능성이 높습니다. 순서는 그대로 유지됩니다.",
  note: "이 페이지를 닫으셔도 순서는 그대로 유지됩니다.",
  retrying: ["다시 처리하고 있습니다", "일시적인 문제가 있었습니다. 고객님의 쿠폰 한 장은 따로 확보해 두었습니다."],
  standby: ["예비 순번으로 대기 중입니다", "쿠폰이 남으면 예비 순번대로 발급해 드립니다."],
  issued: ["쿠폰이 발급되었습니다", (sequence) => `${sequence}번째로 발급받으셨습니다.`],
  ended: {
    sold_out: ["쿠폰이 모두 소진되었습니다", "먼저 도착한 신청에 모두 발급되었습니다."],
    duplicate: ["이미 신청하신 쿠폰입니다", "먼저 하신 신청이 유효합니다."],
    closed: ["쿠폰 발급이 종료되었습니다", "고객님의 신청을 처리하기 전에 발급이 종료되었습니다."],
    paused: ["쿠폰 발급이 일시 중지되었습니다", "잠시 후 다시 신청해 주세요."],
    not_open: ["아직 발급이 시작되지 않았습니다", "시작 시각이 지난 뒤 다시 신청해 주세요."],
    unknown_coupon: ["존재하지 않는 쿠폰입니다", "판매처로 돌아가 다른 쿠폰을 선택해 주세요."],
    exhausted: ["신청을 처리하지 못했습니다", "기술적인 문제가 있었습니다. 판매처에 문의해 주세요."],
    poison: ["신청을 처리하지 못했습니다", "기술적인 문제가 있었습니다. 판매처에 문의해 주세요."],
    lost: ["신청이 유실되었습니다", "기술적인 문제로 처리 전에 신청 기록이 사라졌습니다. 판매처에 문의해 주세요."],
  },
  endedOtherwise: ["쿠폰을 받지 못하셨습니다", (code) => `자세한 내용은 판매처에 문의해 주세요. 사유: ${code}`],
  unknown: ["접수되지 않은 신청입니다", "판매처로 돌아가 다시 신청해 주세요."],
  absent: ["확인할 수 없는 신청입니다", "주소가 잘못되었거나 다른 분의 신청입니다."],
  unauthorized: [
    "판매처에서 이 페이지를 다시 열어 주세요",
    "신청 내역을 볼 수 있는 시간이 지났습니다. 순서는 그대로 유지됩니다.",
  ],
  connection: {
    connecting: "연결 중",
    live: "실시간 연결",
    reconnecting: "연결이 끊겨 다시 연결하고 있습니다",
    polling: "몇 초마다 새로 확인합니다",
    paused: "화면이 가려져 잠시 멈췄습니다",
    closed: "최종 결과",
    stopped: "연결되지 않음",
  },
  requested: "신청 시각",
  request: "신청 번호",
};

/** The texts by language tag. */
export const texts = { en: english, ko: korean };

/** Return the tag of the first language that has texts; English if none has. */
export function chooseLanguage(wanted) {
  const tags = wanted.map((tag) => tag.toLowerCase().split("-")[0]);
  return tags.find((tag) => Object.hasOwn(texts, tag)) ?? "en";
}
