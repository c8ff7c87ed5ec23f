"""The first part of the report in Japanese: for those who decide."""

from __future__ import annotations

DECISIONS: dict[str, str] = {
    "part.decisions": "意思決定のための要約",
    "tile.loss": "評価損失",
    "tile.base": "ベース {value}（{change}）",
    "tile.money": "費用",
    "tile.money.whole": "指定された単価による",
    "tile.money.partly": "一部の単価は未指定",
    "tile.traffic": "通信量",
    "tile.split": "送信 {up}、受信 {down}",
    "tile.time": "所要時間",
    "tile.time.resumed": "最後の再開以降の所要時間",
    "tile.time.rounds": "うちラウンド {time}",
    "tile.memory": "最大メモリ使用量",
    "learned": "学習の成果",
    "learned.unknown": "学習の前後の両方で評価データによる測定が行われていないため、まだ成果を判断できません。",
    "learned.fell": "学習に使用していない {rows} 件のデータで、損失が {before} から {after} に下がりました。",
    "learned.likely": (
        "言い換えると、調整後のモデルが正しい答えに与える確率は、{per}あたりベースモデルの {factor} 倍になりました。"
    ),
    "learned.nothing": (
        "学習に使用していない {rows} 件のデータで、損失は下がりませんでした（学習前 {before}、学習後 {after}）。"
    ),
    "learned.others": "学習の前後で測定したクライアントが異なるため、2 つの損失は同じデータによるものではありません。",
    "answers": "学習前後の回答",
    "answers.before": "ベースモデル",
    "answers.after": "連合学習後のモデル",
    "answers.after.of": "{client} の連合学習後のモデル",
    "answers.empty": "（回答なし）",
    "gain": "単独学習と比べた効果",
    "gain.unmeasured": (
        "測定されていません。評価設定で単独学習との比較を有効にすると、各クライアントを同じステップ数で単独でも学習し、"
        "ここに比較を表示します。"
    ),
    "gain.who": "{all} クライアント中 {count} クライアントで、連合学習の損失が単独学習を下回りました。",
    "gain.without": "効果が見られなかったクライアント：{clients}。",
    "gain.chart": "単独学習と比べたクライアント別の効果",
    "gain.chart.says": (
        "各クライアントの評価データについて、単独学習の損失から連合学習の損失を引いた値です。正の値（青、右側）は連合学"
        "習、負の値（橙、左側）は単独学習のほうが良好であることを表します。"
    ),
    "gain.alone": "損失（単独）",
    "gain.federated": "損失（連合）",
    "gain.difference": "効果",
    "cost": "費用",
    "cost.says": (
        "全クライアントの合計です。採用されなかった試行と測定を含みます。時間はクライアントの稼働時間で、"
        "記録がない場合は学習時間です。サーバー自体の費用は含みません。"
    ),
    "cost.what": "項目",
    "cost.amount": "数量",
    "cost.money": "金額",
    "cost.hours": "クライアント稼働時間",
    "cost.energy": "推定電力量（時間 × 電力）",
    "cost.traffic": "通信量",
    "cost.total": "単価のある項目の合計",
    "cost.unpriced": (
        "単価が指定されていないため、電力量と金額は算出していません。{option} で、{table} の表を含むファイルを指定でき"
        "ます。"
    ),
    "cost.missing": "次の項目は {table} に指定がないため、合計に含まれていません：{names}",
    "further": "ラウンドを追加する価値はあるか",
    "further.unmeasured": "同じクライアントによる評価損失の測定が 2 回以上行われていないため、判断できません。",
    "further.last": "最後に測定した第 {round} ラウンドで、評価損失は {gain} 下がり、{loss} になりました。",
    "further.rose": "最後に測定した第 {round} ラウンドで、評価損失は {gain} 上がり、{loss} になりました。",
    "further.few": (
        "将来の推定は行いません。効果が分かっているラウンドは {count} 回分ですが、推定には {least} 回分以上が必要です。"
    ),
    "further.worse": (
        "将来の推定は行いません。直近に測定した {window} ラウンドの中に、損失が下がらなかったものがあります。ラウンドを"
        "追加する前に、推移をご確認ください。"
    ),
    "further.steady": (
        "将来の推定は行いません。直近に測定した {window} ラウンドの効果が、一定の割合では減少していません。追加により効"
        "果が得られる可能性はありますが、その大きさはこのデータからは分かりません。"
    ),
    "further.next": "次のラウンドで、損失はさらに {gain} 下がると見込まれます。",
    "further.all": "今後ラウンドをどれだけ追加しても、損失の低下は合計 {gain} 程度と見込まれます。",
    "further.assumption": (
        "前提：各ラウンドの効果は、直前のラウンドの一定割合（ここでは {percent}%）になると仮定し、最大で直近 {window} "
        "回分の効果に当てはめています。幅は、いずれか 1 回分を除いた場合の変動を示します。過学習やデータの変化は考慮し"
        "ていません。"
    ),
    "further.cost": (
        "直近に測定した {count} ラウンドの平均では、1 ラウンドあたりクライアントの稼働が {hours}、通信量が {bytes} です"
        "。"
    ),
    "further.money": "指定された単価では、1 ラウンドあたり {money} です。",
    "further.price": "損失をさらに {step} 下げる費用は {money}と見込まれます。",
    "further.gain": "ラウンドの効果",
    "further.hours": "稼働時間",
    "further.traffic": "通信量",
    "further.per.step": "損失 {step} あたり",
    "further.chart": "各ラウンドの効果",
    "further.chart.says": (
        "全クライアントの評価データの損失が、1 ラウンドでどれだけ下がったかを示します。負の値は上昇を表します。各ラウン"
        "ドの費用は表に記載しています。"
    ),
    "promise": "プライバシー",
    "promise.none": "ノイズを加えていないため、数学的なプライバシー保証はありません。",
    "promise.client": "クライアント単位の保証で、これまでにイプシロン {epsilon}（デルタ {delta}）を消費しました。",
    "promise.example": (
        "学習データ 1 件ごとの保証で、これまでに消費したイプシロンは最大 {epsilon}（デルタ {delta}）です。最も多いのは "
        "{client} です。"
    ),
    "promise.meaning": (
        "言い換えると、その 1 件がデータに含まれるかどうかを推測する際のオッズは、デルタの確率を除き、最大でも {factor}"
        " 倍までしか変わりません。"
    ),
    "promise.weak": "イプシロン {epsilon} は大きな値であり、数学的な保証としての意味はほとんどありません。",
    "promise.masked": (
        "セキュア集約が有効でした。サーバーが見たのは更新の合計のみで、個々のクライアントの更新は見ていません。"
    ),
    "promise.open": "セキュア集約は無効でした。サーバーは各クライアントの更新を見ています。",
    "incidents": "特記事項",
    "incidents.none": "特記事項はありません。離脱、却下、巻き戻し、修復はいずれも記録されていません。",
    "incidents.count": "{what}：{count} 件",
    "incidents.what": "内容",
    "incidents.said": "理由と詳細",
    "incidents.quoted": "理由と詳細は、実行記録の英語の原文をそのまま引用しています。",
    "event.refused": "送信内容の却下",
    "event.client_refused": "クライアントの拒否",
    "event.dropout": "離脱",
    "event.asked_again": "再依頼",
    "event.stopped_early": "早期終了",
    "event.repaired": "実行記録の修復",
    "event.resumed": "再開",
    "event.left_out": "省略",
    "event.rolled_back": "巻き戻し",
    "event.replanned": "計画の変更",
    "event.pieces_made_anew": "分割データの再作成",
    "event.continued": "停止後の続行",
    "event.late": "待たれなかった",
    "event.late_dropped": "遅れた回答の破棄",
    "event.continued_as": "別の実行が継続",
    "event.readmitted": "参加の再開",
    "event.excluded": "参加停止",
    "event.budget": "使用上限の変更",
    "event.gate": "品質ゲート",
    "event.robust": "頑健な集約",
    "event.control": "操作要求",
    "reproduce": "再現方法",
    "reproduce.says": "同じバージョン、スレッド数、同種の機器であれば、次のコマンドで同じダイジェストが得られます。",
    "reproduce.noise": (
        "プライバシー保護のノイズは毎回新たに生成されるため、次のコマンドで得られるのは同種の結果であり、ダイジェストは"
        "一致しません。"
    ),
    "reproduce.command": "コマンド",
    "reproduce.seed": "乱数シード",
    "reproduce.digest": "結果のダイジェスト",
    "reproduce.journal": "実行記録は、各記録が直前の記録のダイジェストを持つ連鎖になっています。",
}
